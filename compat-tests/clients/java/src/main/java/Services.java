import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.KV;
import io.etcd.jetcd.Watch;
import io.etcd.jetcd.kv.GetResponse;
import io.etcd.jetcd.kv.TxnResponse;
import io.etcd.jetcd.op.Cmp;
import io.etcd.jetcd.op.CmpTarget;
import io.etcd.jetcd.op.Op;
import io.etcd.jetcd.options.DeleteOption;
import io.etcd.jetcd.options.GetOption;
import io.etcd.jetcd.options.PutOption;
import io.etcd.jetcd.options.WatchOption;
import io.etcd.jetcd.watch.WatchEvent;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/** Does with jetcd what services do: configuration, discovery, a lock and an election. */
public final class Services {
    private static ByteSequence bytes(String text) {
        return ByteSequence.from(text, StandardCharsets.UTF_8);
    }

    private static <T> T await(CompletableFuture<T> future) throws Exception {
        return future.get(Jobs.DEADLINE_S, TimeUnit.SECONDS);
    }

    private static void configuration(Client client) throws Exception {
        KV kv = client.getKVClient();
        ByteSequence key = bytes("java/config/level");
        await(kv.put(key, bytes("info")));
        GetResponse read = await(kv.get(key));
        Jobs.check(read.getKvs().get(0).getValue().equals(bytes("info")), read);
        BlockingQueue<WatchEvent> events = new LinkedBlockingQueue<>();
        WatchOption option = WatchOption.builder()
            .isPrefix(true).withPrevKV(true).withRevision(read.getHeader().getRevision() + 1).build();
        try (Watch.Watcher watcher = client.getWatchClient().watch(
                bytes("java/config/"), option, reply -> events.addAll(reply.getEvents()))) {
            await(kv.put(key, bytes("warn")));
            await(kv.delete(key));
            WatchEvent put = Jobs.next(events);
            Jobs.check(put.getEventType() == WatchEvent.EventType.PUT, put);
            Jobs.check(put.getPrevKV().getValue().equals(bytes("info")), put);
            Jobs.check(Jobs.next(events).getEventType() == WatchEvent.EventType.DELETE, "no deletion");
        }
    }

    private static TxnResponse swap(KV kv, String before, String after) throws Exception {
        ByteSequence key = bytes("java/counter");
        return await(kv.txn()
            .If(new Cmp(key, Cmp.Op.EQUAL, CmpTarget.value(bytes(before))))
            .Then(Op.put(key, bytes(after), PutOption.DEFAULT))
            .Else(Op.get(key, GetOption.DEFAULT))
            .commit());
    }

    private static void transaction(Client client) throws Exception {
        KV kv = client.getKVClient();
        await(kv.put(bytes("java/counter"), bytes("1")));
        Jobs.check(swap(kv, "1", "2").isSucceeded(), "the first swap failed");
        TxnResponse stale = swap(kv, "1", "3");
        Jobs.check(!stale.isSucceeded(), stale);
        Jobs.check(stale.getGetResponses().get(0).getKvs().get(0).getValue().equals(bytes("2")), stale);
        DeleteOption prefix = DeleteOption.builder().isPrefix(true).build();
        Jobs.check(await(kv.delete(bytes("java/counter"), prefix)).getDeleted() == 1, "not deleted");
    }

    private static void discovery(Client client) throws Exception {
        KV kv = client.getKVClient();
        long lease = await(client.getLeaseClient().grant(5)).getID();
        PutOption leased = PutOption.builder().withLeaseId(lease).build();
        await(kv.put(bytes("java/services/web/1"), bytes("10.0.0.1:80"), leased));
        Jobs.check(await(client.getLeaseClient().keepAliveOnce(lease)).getTTL() == 5, "not kept alive");
        GetOption prefix = GetOption.builder().isPrefix(true).build();
        Jobs.check(await(kv.get(bytes("java/services/web/"), prefix)).getCount() == 1, "not found");
        await(client.getLeaseClient().revoke(lease));
        Jobs.check(await(kv.get(bytes("java/services/web/"), prefix)).getCount() == 0, "still found");
    }

    /** Creates the key under the lease unless another has it. */
    private static boolean claim(Client client, String key, long lease) throws Exception {
        PutOption leased = PutOption.builder().withLeaseId(lease).build();
        return await(client.getKVClient().txn()
            .If(new Cmp(bytes(key), Cmp.Op.EQUAL, CmpTarget.createRevision(0)))
            .Then(Op.put(bytes(key), bytes(Long.toString(lease)), leased))
            .commit()).isSucceeded();
    }

    private static void lock(Client client) throws Exception {
        AtomicInteger inside = new AtomicInteger();
        int[] counter = {0};
        CompletableFuture<?>[] contenders = new CompletableFuture<?>[4];
        for (int i = 0; i < contenders.length; i++) {
            contenders[i] = CompletableFuture.runAsync(() -> {
                try {
                    contend(client, inside, counter);
                } catch (Exception e) {
                    throw new IllegalStateException(e);
                }
            });
        }
        await(CompletableFuture.allOf(contenders));
        Jobs.check(counter[0] == contenders.length, counter[0]);
    }

    private static void contend(Client client, AtomicInteger inside, int[] counter) throws Exception {
        long lease = await(client.getLeaseClient().grant(10)).getID();
        BlockingQueue<WatchEvent> events = new LinkedBlockingQueue<>();
        WatchOption deletions = WatchOption.builder().withNoPut(true).build();
        try (Watch.Watcher watcher = client.getWatchClient().watch(
                bytes("java/lock"), deletions, reply -> events.addAll(reply.getEvents()))) {
            while (!claim(client, "java/lock", lease)) {
                events.poll(100, TimeUnit.MILLISECONDS);
            }
            Jobs.check(inside.incrementAndGet() == 1, "two in the lock");
            counter[0]++;
            inside.decrementAndGet();
        }
        await(client.getLeaseClient().revoke(lease));
    }

    private static void election(Client client) throws Exception {
        long one = await(client.getLeaseClient().grant(10)).getID();
        long two = await(client.getLeaseClient().grant(10)).getID();
        Jobs.check(claim(client, "java/leader", one), "nobody is leader");
        Jobs.check(!claim(client, "java/leader", two), "two leaders");
        BlockingQueue<WatchEvent> events = new LinkedBlockingQueue<>();
        long revision = await(client.getKVClient().get(bytes("java/leader"))).getHeader().getRevision();
        WatchOption after = WatchOption.builder().withRevision(revision + 1).build();
        try (Watch.Watcher watcher = client.getWatchClient().watch(
                bytes("java/leader"), after, reply -> events.addAll(reply.getEvents()))) {
            await(client.getLeaseClient().revoke(one));
            Jobs.check(Jobs.next(events).getEventType() == WatchEvent.EventType.DELETE, "no resignation");
        }
        Jobs.check(claim(client, "java/leader", two), "the second is not leader");
        await(client.getLeaseClient().revoke(two));
    }

    public static void main(String[] arguments) {
        String[] endpoints = System.getenv("ENDPOINTS").split(",");
        Jobs<Client> jobs = new Jobs<>(() -> Client.builder().endpoints(endpoints).build());
        jobs.put("configuration", Services::configuration);
        jobs.put("transaction", Services::transaction);
        jobs.put("discovery", Services::discovery);
        jobs.put("lock", Services::lock);
        jobs.put("election", Services::election);
        jobs.run();
    }
}
