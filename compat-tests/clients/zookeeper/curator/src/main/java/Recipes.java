import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.api.transaction.CuratorOp;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.recipes.barriers.DistributedBarrier;
import org.apache.curator.framework.recipes.barriers.DistributedDoubleBarrier;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.cache.CuratorCacheListener;
import org.apache.curator.framework.recipes.cache.NodeCache;
import org.apache.curator.framework.recipes.cache.PathChildrenCache;
import org.apache.curator.framework.recipes.cache.TreeCache;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderSelector;
import org.apache.curator.framework.recipes.leader.LeaderSelectorListenerAdapter;
import org.apache.curator.framework.recipes.locks.InterProcessMultiLock;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.locks.InterProcessReadWriteLock;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreMutex;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreV2;
import org.apache.curator.framework.recipes.locks.Lease;
import org.apache.curator.framework.recipes.nodes.GroupMember;
import org.apache.curator.framework.recipes.nodes.PersistentNode;
import org.apache.curator.framework.recipes.nodes.PersistentTtlNode;
import org.apache.curator.framework.recipes.queue.DistributedQueue;
import org.apache.curator.framework.recipes.queue.QueueBuilder;
import org.apache.curator.framework.recipes.queue.QueueConsumer;
import org.apache.curator.framework.recipes.queue.QueueSerializer;
import org.apache.curator.framework.recipes.queue.SimpleDistributedQueue;
import org.apache.curator.framework.recipes.shared.SharedCount;
import org.apache.curator.framework.recipes.shared.SharedValue;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.curator.retry.ExponentialBackoffRetry;
import org.apache.curator.retry.RetryNTimes;
import org.apache.curator.x.discovery.ServiceDiscovery;
import org.apache.curator.x.discovery.ServiceDiscoveryBuilder;
import org.apache.curator.x.discovery.ServiceInstance;
import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.Watcher.Event.EventType;
import org.apache.zookeeper.data.Stat;

/** Does with Curator what services do, and each of its recipes once. */
@SuppressWarnings("deprecation") // the caches and queues that programs still use
public final class Recipes {
    private static final long DEADLINE_S = Jobs.DEADLINE_S;
    private static final int CONTENDERS = 4;
    private static final ExecutorService THREADS = Executors.newCachedThreadPool();

    private interface Contender {
        void run(int number, CuratorFramework client) throws Exception;
    }

    private interface Condition {
        boolean holds() throws Exception;
    }

    private static CuratorFramework connect() throws Exception {
        CuratorFramework client = CuratorFrameworkFactory.newClient(
            System.getenv("ZOOKEEPER"), 10_000, 10_000, new ExponentialBackoffRetry(50, 5));
        client.start();
        Jobs.check(client.blockUntilConnected((int) DEADLINE_S, TimeUnit.SECONDS), "no connection");
        return client;
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static void same(Object wanted, Object seen) {
        Jobs.check(wanted.equals(seen), seen + ", not " + wanted);
    }

    private static void await(String what, Condition condition) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(DEADLINE_S);
        while (!condition.holds()) {
            Jobs.check(System.nanoTime() < deadline, "no " + what);
            Thread.sleep(10);
        }
    }

    private static <E extends Exception> void fails(Class<E> with, Callable<?> work) throws Exception {
        try {
            Object answer = work.call();
            throw new AssertionError("saw " + answer + ", not " + with.getSimpleName());
        } catch (Exception e) {
            Jobs.check(with.isInstance(e), e);
        }
    }

    /** Runs the same in that many threads, each with a session of its own. */
    private static void inThreads(int count, Contender contender) throws Exception {
        List<Future<?>> futures = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            int number = i;
            futures.add(THREADS.submit(() -> {
                try (CuratorFramework client = connect()) {
                    contender.run(number, client);
                }
                return null;
            }));
        }
        for (Future<?> future : futures) {
            future.get(2 * DEADLINE_S, TimeUnit.SECONDS);
        }
    }

    /** Notes how many are in it at once. */
    private static final class Region {
        final AtomicInteger inside = new AtomicInteger();
        final AtomicInteger most = new AtomicInteger();
        final AtomicInteger entries = new AtomicInteger();

        void visit() throws InterruptedException {
            int now = inside.incrementAndGet();
            most.accumulateAndGet(now, Math::max);
            entries.incrementAndGet();
            Thread.sleep(10);
            inside.decrementAndGet();
        }

        void visited(int times, int atOnce) {
            same(times, entries.get());
            Jobs.check(most.get() <= atOnce, most.get() + " at once");
        }
    }

    private static void configuration(CuratorFramework client) throws Exception {
        String path = "/curator/config/level";
        client.create().creatingParentsIfNeeded().forPath(path, bytes("info"));
        BlockingQueue<WatchedEvent> events = new LinkedBlockingQueue<>();
        Stat stat = new Stat();
        byte[] read = client.getData().storingStatIn(stat)
            .usingWatcher((org.apache.zookeeper.Watcher) events::add).forPath(path);
        same("info", new String(read, StandardCharsets.UTF_8));
        client.setData().withVersion(stat.getVersion()).forPath(path, bytes("warn"));
        same(EventType.NodeDataChanged, Jobs.next(events).getType());
        fails(KeeperException.BadVersionException.class,
            () -> client.setData().withVersion(stat.getVersion()).forPath(path, bytes("error")));
        fails(KeeperException.NotEmptyException.class,
            () -> client.delete().forPath("/curator/config"));
        client.delete().deletingChildrenIfNeeded().forPath("/curator/config");
        Jobs.check(client.checkExists().forPath(path) == null, "a deleted node");
    }

    private static void transaction(CuratorFramework client) throws Exception {
        client.create().forPath("/curator/counter", bytes("1"));
        List<CuratorOp> swap = List.of(
            client.transactionOp().check().withVersion(0).forPath("/curator/counter"),
            client.transactionOp().setData().forPath("/curator/counter", bytes("2")),
            client.transactionOp().create().forPath("/curator/counter/log"));
        same(3, client.transaction().forOperations(swap).size());
        fails(KeeperException.class, () -> client.transaction().forOperations(
            client.transactionOp().delete().forPath("/curator/counter/log"),
            client.transactionOp().check().withVersion(0).forPath("/curator/counter")));
        same(List.of("log"), client.getChildren().forPath("/curator/counter"));
    }

    private static void discovery(CuratorFramework client) throws Exception {
        ServiceInstance<Void> instance = ServiceInstance.<Void>builder()
            .name("web").address("10.0.0.1").port(80).build();
        try (CuratorFramework provider = connect();
                ServiceDiscovery<Void> seen = discoveryOf(client)) {
            try (ServiceDiscovery<Void> offered = discoveryOf(provider)) {
                offered.registerService(instance);
                await("instance", () -> !seen.queryForInstances("web").isEmpty());
                Collection<ServiceInstance<Void>> found = seen.queryForInstances("web");
                same("10.0.0.1", found.iterator().next().getAddress());
                same(Set.of("web"), Set.copyOf(seen.queryForNames()));
            }
            await("instance gone", () -> seen.queryForInstances("web").isEmpty());
        }
    }

    private static ServiceDiscovery<Void> discoveryOf(CuratorFramework client) throws Exception {
        ServiceDiscovery<Void> discovery = ServiceDiscoveryBuilder.builder(Void.class)
            .client(client).basePath("/curator/services").build();
        discovery.start();
        return discovery;
    }

    private static void mutex(CuratorFramework unused) throws Exception {
        Region region = new Region();
        inThreads(CONTENDERS, (number, client) -> {
            InterProcessMutex lock = new InterProcessMutex(client, "/curator/mutex");
            Jobs.check(lock.acquire(DEADLINE_S, TimeUnit.SECONDS), "no turn");
            Jobs.check(lock.acquire(DEADLINE_S, TimeUnit.SECONDS), "not reentrant");
            region.visit();
            lock.release();
            lock.release();
        });
        region.visited(CONTENDERS, 1);
    }

    private static void readWriteLock(CuratorFramework client) throws Exception {
        try (CuratorFramework other = connect()) {
            InterProcessReadWriteLock ours = new InterProcessReadWriteLock(client, "/curator/rw");
            InterProcessReadWriteLock theirs = new InterProcessReadWriteLock(other, "/curator/rw");
            ours.readLock().acquire();
            Jobs.check(theirs.readLock().acquire(DEADLINE_S, TimeUnit.SECONDS), "no shared reading");
            theirs.readLock().release();
            Jobs.check(!theirs.writeLock().acquire(50, TimeUnit.MILLISECONDS), "a writer beside a reader");
            ours.readLock().release();
            Jobs.check(theirs.writeLock().acquire(DEADLINE_S, TimeUnit.SECONDS), "no writer");
            Jobs.check(!ours.readLock().acquire(50, TimeUnit.MILLISECONDS), "a reader beside a writer");
            theirs.writeLock().release();
        }
    }

    private static void semaphores(CuratorFramework client) throws Exception {
        Region region = new Region();
        inThreads(CONTENDERS, (number, own) -> {
            Lease lease = new InterProcessSemaphoreV2(own, "/curator/semaphore", 2).acquire();
            region.visit();
            lease.close();
        });
        region.visited(CONTENDERS, 2);
        InterProcessSemaphoreMutex mutex = new InterProcessSemaphoreMutex(client, "/curator/once");
        mutex.acquire();
        InterProcessSemaphoreMutex again = new InterProcessSemaphoreMutex(client, "/curator/once");
        Jobs.check(!again.acquire(50, TimeUnit.MILLISECONDS), "reentrance");
        mutex.release();
    }

    private static void multiLock(CuratorFramework client) throws Exception {
        InterProcessMultiLock both = new InterProcessMultiLock(
            client, List.of("/curator/both/a", "/curator/both/b"));
        try (CuratorFramework other = connect()) {
            InterProcessMutex one = new InterProcessMutex(other, "/curator/both/b");
            one.acquire();
            Jobs.check(!both.acquire(50, TimeUnit.MILLISECONDS), "half of it");
            one.release();
            Jobs.check(both.acquire(DEADLINE_S, TimeUnit.SECONDS), "none of it");
            both.release();
        }
    }

    private static void leaderLatch(CuratorFramework client) throws Exception {
        try (CuratorFramework other = connect();
                LeaderLatch second = new LeaderLatch(other, "/curator/latch", "two")) {
            try (LeaderLatch first = new LeaderLatch(client, "/curator/latch", "one")) {
                first.start();
                Jobs.check(first.await(DEADLINE_S, TimeUnit.SECONDS), "no leader");
                second.start();
                await("second candidate", () -> second.getParticipants().size() == 2);
                Jobs.check(!second.hasLeadership(), "two leaders");
                same("one", second.getLeader().getId());
            }
            Jobs.check(second.await(DEADLINE_S, TimeUnit.SECONDS), "no heir");
        }
    }

    private static void leaderSelector(CuratorFramework unused) throws Exception {
        Region region = new Region();
        inThreads(CONTENDERS, (number, client) -> {
            CountDownLatch led = new CountDownLatch(1);
            LeaderSelectorListenerAdapter listener = new LeaderSelectorListenerAdapter() {
                @Override
                public void takeLeadership(CuratorFramework own) throws Exception {
                    region.visit();
                    led.countDown();
                }
            };
            try (LeaderSelector selector =
                    new LeaderSelector(client, "/curator/selector", listener)) {
                selector.start();
                Jobs.check(led.await(DEADLINE_S, TimeUnit.SECONDS), "never the leader");
            }
        });
        region.visited(CONTENDERS, 1);
    }

    private static void curatorCache(CuratorFramework client) throws Exception {
        client.create().creatingParentsIfNeeded().forPath("/curator/cache/a/b", bytes("1"));
        BlockingQueue<String> events = new LinkedBlockingQueue<>();
        CountDownLatch filled = new CountDownLatch(1);
        try (CuratorCache cache = CuratorCache.build(client, "/curator/cache")) {
            cache.listenable().addListener(CuratorCacheListener.builder()
                .forCreates(node -> events.add("created " + node.getPath()))
                .forChanges((before, node) -> events.add("changed " + node.getPath()))
                .forDeletes(node -> events.add("deleted " + node.getPath()))
                .afterInitialized().forInitialized(filled::countDown).build());
            cache.start();
            Jobs.check(filled.await(DEADLINE_S, TimeUnit.SECONDS), "an empty cache");
            same(3, cache.size());
            client.setData().forPath("/curator/cache/a/b", bytes("2"));
            same("changed /curator/cache/a/b", Jobs.next(events));
            client.create().forPath("/curator/cache/c");
            same("created /curator/cache/c", Jobs.next(events));
            client.delete().forPath("/curator/cache/a/b");
            same("deleted /curator/cache/a/b", Jobs.next(events));
            same(3, cache.size());
        }
    }

    private static void olderCaches(CuratorFramework client) throws Exception {
        client.create().creatingParentsIfNeeded().forPath("/curator/old/a", bytes("1"));
        BlockingQueue<String> events = new LinkedBlockingQueue<>();
        try (PathChildrenCache children = new PathChildrenCache(client, "/curator/old", true);
                NodeCache node = new NodeCache(client, "/curator/old/a");
                TreeCache tree = new TreeCache(client, "/curator/old")) {
            children.start(PathChildrenCache.StartMode.BUILD_INITIAL_CACHE);
            node.start(true);
            tree.start();
            children.getListenable().addListener((own, event) -> events.add(event.getType().name()));
            same(1, children.getCurrentData().size());
            await("tree", () -> tree.getCurrentData("/curator/old/a") != null);
            client.setData().forPath("/curator/old/a", bytes("2"));
            same("CHILD_UPDATED", Jobs.next(events));
            await("change of the node",
                () -> new String(node.getCurrentData().getData(), StandardCharsets.UTF_8).equals("2"));
            client.create().forPath("/curator/old/b");
            same("CHILD_ADDED", Jobs.next(events));
            client.delete().forPath("/curator/old/a");
            same("CHILD_REMOVED", Jobs.next(events));
            await("deletion", () -> node.getCurrentData() == null
                && tree.getCurrentChildren("/curator/old").keySet().equals(Set.of("b")));
        }
    }

    private static void counters(CuratorFramework client) throws Exception {
        inThreads(CONTENDERS, (number, own) -> {
            DistributedAtomicLong total = new DistributedAtomicLong(
                own, "/curator/total", new RetryNTimes(50, 10));
            for (int i = 0; i < 5; i++) {
                Jobs.check(total.increment().succeeded(), "an increment that gave up");
            }
        });
        client.sync().forPath("/curator/total");
        DistributedAtomicLong total = new DistributedAtomicLong(
            client, "/curator/total", new RetryNTimes(50, 10));
        same(5L * CONTENDERS, total.get().postValue());
        try (SharedCount count = new SharedCount(client, "/curator/count", 7);
                SharedValue value = new SharedValue(client, "/curator/value", bytes("x"))) {
            count.start();
            value.start();
            same(7, count.getCount());
            Jobs.check(count.trySetCount(count.getVersionedValue(), 8), "a change that lost");
            await("count", () -> count.getCount() == 8);
            value.setValue(bytes("y"));
            await("value", () -> value.getValue()[0] == 'y');
        }
    }

    private static void queues(CuratorFramework client) throws Exception {
        SimpleDistributedQueue simple = new SimpleDistributedQueue(client, "/curator/simple");
        Jobs.check(simple.offer(bytes("one")) && simple.offer(bytes("two")), "an offer refused");
        same("one", new String(simple.take(), StandardCharsets.UTF_8));
        same("two", new String(simple.poll(DEADLINE_S, TimeUnit.SECONDS), StandardCharsets.UTF_8));
        BlockingQueue<String> taken = new LinkedBlockingQueue<>();
        QueueConsumer<String> consumer = new QueueConsumer<>() {
            @Override
            public void consumeMessage(String message) {
                taken.add(message);
            }

            @Override
            public void stateChanged(CuratorFramework own, ConnectionState state) {
            }
        };
        QueueSerializer<String> text = new QueueSerializer<>() {
            @Override
            public byte[] serialize(String item) {
                return bytes(item);
            }

            @Override
            public String deserialize(byte[] item) {
                return new String(item, StandardCharsets.UTF_8);
            }
        };
        try (DistributedQueue<String> queue = QueueBuilder
                .builder(client, consumer, text, "/curator/queue")
                .lockPath("/curator/queue-locks").buildQueue()) {
            queue.start();
            queue.put("one");
            queue.put("two");
            same(Set.of("one", "two"), new TreeSet<>(List.of(Jobs.next(taken), Jobs.next(taken))));
        }
    }

    private static void barriers(CuratorFramework client) throws Exception {
        DistributedBarrier barrier = new DistributedBarrier(client, "/curator/barrier");
        barrier.setBarrier();
        Jobs.check(!barrier.waitOnBarrier(20, TimeUnit.MILLISECONDS), "an open barrier");
        Future<?> opened = THREADS.submit(() -> {
            try (CuratorFramework other = connect()) {
                new DistributedBarrier(other, "/curator/barrier").removeBarrier();
            }
            return null;
        });
        Jobs.check(barrier.waitOnBarrier(DEADLINE_S, TimeUnit.SECONDS), "a closed barrier");
        opened.get();
        AtomicInteger inside = new AtomicInteger();
        inThreads(2, (number, own) -> {
            DistributedDoubleBarrier both = new DistributedDoubleBarrier(own, "/curator/double", 2);
            Jobs.check(both.enter(DEADLINE_S, TimeUnit.SECONDS), "alone");
            inside.incrementAndGet();
            Jobs.check(both.leave(DEADLINE_S, TimeUnit.SECONDS), "stuck");
            same(2, inside.get());
        });
    }

    private static void nodes(CuratorFramework client) throws Exception {
        try (CuratorFramework owner = connect();
                GroupMember ours = new GroupMember(client, "/curator/group", "one")) {
            ours.start();
            try (PersistentNode node = new PersistentNode(
                        owner, CreateMode.EPHEMERAL, false, "/curator/kept", bytes("x"));
                    GroupMember theirs = new GroupMember(owner, "/curator/group", "two")) {
                node.start();
                theirs.start();
                Jobs.check(node.waitForInitialCreate(DEADLINE_S, TimeUnit.SECONDS), "no node");
                await("two members", () -> ours.getCurrentMembers().size() == 2);
                await("node", () -> client.checkExists().forPath("/curator/kept") != null);
                client.delete().forPath("/curator/kept");
                await("node made anew", () -> client.checkExists().forPath("/curator/kept") != null);
            }
            await("one member", () -> ours.getCurrentMembers().keySet().equals(Set.of("one")));
        }
    }

    private static void idleNodes(CuratorFramework client) throws Exception {
        try (PersistentTtlNode node =
                new PersistentTtlNode(client, "/curator/ttl", 60_000, bytes("x"))) {
            node.start();
            Jobs.check(node.waitForInitialCreate(DEADLINE_S, TimeUnit.SECONDS), "no node");
            Stat stat = client.checkExists().forPath("/curator/ttl");
            same(0L, stat.getEphemeralOwner());
        }
        client.create().creatingParentContainersIfNeeded().forPath("/curator/container/child");
        same(1, client.checkExists().forPath("/curator/container").getNumChildren());
    }

    private static void recursiveWatch(CuratorFramework client) throws Exception {
        client.create().creatingParentsIfNeeded().forPath("/curator/watched");
        BlockingQueue<String> events = new LinkedBlockingQueue<>();
        org.apache.zookeeper.Watcher watcher =
            event -> events.add(event.getType() + " " + event.getPath());
        client.watchers().add().withMode(AddWatchMode.PERSISTENT_RECURSIVE)
            .usingWatcher(watcher).forPath("/curator/watched");
        client.create().forPath("/curator/watched/a");
        client.delete().forPath("/curator/watched/a");
        same("NodeCreated /curator/watched/a", Jobs.next(events));
        same("NodeDeleted /curator/watched/a", Jobs.next(events));
        client.watchers().remove(watcher).forPath("/curator/watched");
    }

    public static void main(String[] arguments) {
        Jobs<CuratorFramework> jobs = new Jobs<>(Recipes::connect);
        jobs.put("configuration", Recipes::configuration);
        jobs.put("transaction", Recipes::transaction);
        jobs.put("discovery", Recipes::discovery);
        jobs.put("mutex", Recipes::mutex);
        jobs.put("readWriteLock", Recipes::readWriteLock);
        jobs.put("semaphores", Recipes::semaphores);
        jobs.put("multiLock", Recipes::multiLock);
        jobs.put("leaderLatch", Recipes::leaderLatch);
        jobs.put("leaderSelector", Recipes::leaderSelector);
        jobs.put("curatorCache", Recipes::curatorCache);
        jobs.put("olderCaches", Recipes::olderCaches);
        jobs.put("counters", Recipes::counters);
        jobs.put("queues", Recipes::queues);
        jobs.put("barriers", Recipes::barriers);
        jobs.put("nodes", Recipes::nodes);
        jobs.put("idleNodes", Recipes::idleNodes);
        jobs.put("recursiveWatch", Recipes::recursiveWatch);
        jobs.run();
    }
}
