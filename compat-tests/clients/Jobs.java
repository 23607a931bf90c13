import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.TimeUnit;

/** What the clients written in Java share: each job with a client of its own, and the count. */
final class Jobs<C extends AutoCloseable> {
    static final long DEADLINE_S = 30;

    /** What is done with a client. */
    interface Job<C> {
        void run(C client) throws Exception;
    }

    private final Callable<C> connect;
    private final Map<String, Job<C>> jobs = new LinkedHashMap<>();

    Jobs(Callable<C> connect) {
        this.connect = connect;
    }

    void put(String name, Job<C> job) {
        jobs.put(name, job);
    }

    /** Does the jobs and ends the process, which has failed unless all were done. */
    void run() {
        int passed = 0;
        int failed = 0;
        for (Map.Entry<String, Job<C>> job : jobs.entrySet()) {
            try (C client = connect.call()) {
                job.getValue().run(client);
                passed++;
            } catch (Exception | AssertionError e) {
                System.out.println("FAIL " + job.getKey() + ": " + e);
                failed++;
            }
        }
        System.out.println(passed + " passed, " + failed + " failed");
        System.exit(failed > 0 ? 1 : 0);
    }

    static void check(boolean holds, Object seen) {
        if (!holds) {
            throw new AssertionError("saw " + seen);
        }
    }

    static <T> T next(BlockingQueue<T> events) throws Exception {
        T event = events.poll(DEADLINE_S, TimeUnit.SECONDS);
        check(event != null, "nothing");
        return event;
    }
}
