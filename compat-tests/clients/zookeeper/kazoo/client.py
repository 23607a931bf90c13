"""Does with Python's kazoo what services do, and each of its recipes once."""

import os
import queue
import threading
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import jobs
from kazoo.client import KazooClient
from kazoo.exceptions import (
    AuthFailedError, BadVersionError, NoAuthError, NodeExistsError, NotEmptyError, RolledBackError)
from kazoo.recipe.cache import TreeCache, TreeEvent
from kazoo.recipe.watchers import PatientChildrenWatch
from kazoo.security import make_acl, make_digest_acl

DEADLINE_S = 30
CONTENDERS = 4
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
CERTIFICATES = CACHE / "triglot-originals/certificates"
# Whose certificate is the client's, as Java spells it.
CERTIFIED = "CN=client,O=Triglot\\, tests,C=DE"


@contextmanager
def connected(hosts="ZOOKEEPER", **options):
    client = KazooClient(hosts=os.environ[hosts], timeout=10, **options)
    client.start(DEADLINE_S)
    try:
        yield client
    finally:
        client.stop()
        client.close()


def in_threads(count, work):
    """Runs `work(number, client)` in that many threads, each with a session of its own."""
    failures = []

    def run(number):
        try:
            with connected() as client:
                work(number, client)
        except BaseException as error:
            failures.append(error)
    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * DEADLINE_S)
        assert not thread.is_alive(), "a thread hangs"
    assert not failures, failures


class Region:
    """Notes how many are in it at once."""

    def __init__(self):
        self.guard = threading.Lock()
        self.inside = self.most = self.entries = 0

    def visit(self):
        with self.guard:
            self.inside += 1
            self.entries += 1
            self.most = max(self.most, self.inside)
        threading.Event().wait(0.01)
        with self.guard:
            self.inside -= 1


def configuration(client):
    assert client.create("/kazoo/config/level", b"info", makepath=True) == "/kazoo/config/level"
    seen = queue.Queue()
    client.DataWatch("/kazoo/config/level", lambda data, stat: seen.put(data))
    assert seen.get(timeout=DEADLINE_S) == b"info"
    stat = client.set("/kazoo/config/level", b"warn")
    assert seen.get(timeout=DEADLINE_S) == b"warn"
    assert client.get("/kazoo/config/level") == (b"warn", stat)
    try:
        client.set("/kazoo/config/level", b"error", version=stat.version - 1)
        raise AssertionError("a stale write went through")
    except BadVersionError:
        pass
    try:
        client.delete("/kazoo/config")
        raise AssertionError("a node with children went away")
    except NotEmptyError:
        pass
    client.delete("/kazoo/config", recursive=True)
    assert seen.get(timeout=DEADLINE_S) is None


def discovery(client):
    client.ensure_path("/kazoo/services")
    seen = queue.Queue()
    client.ChildrenWatch("/kazoo/services", seen.put)
    assert seen.get(timeout=DEADLINE_S) == []
    with connected() as service:
        path = service.create(
            "/kazoo/services/web-", b"10.0.0.1:80", ephemeral=True, sequence=True)
        assert path == "/kazoo/services/web-0000000000", path
        assert seen.get(timeout=DEADLINE_S) == ["web-0000000000"]
        client.sync(path)
        data, stat = client.get(path)
        assert data == b"10.0.0.1:80" and stat.ephemeralOwner == service.client_id[0]
    assert seen.get(timeout=DEADLINE_S) == []


def transaction(client):
    client.create("/kazoo/counter", b"1")
    swap = client.transaction()
    swap.check("/kazoo/counter", 0)
    swap.set_data("/kazoo/counter", b"2")
    swap.create("/kazoo/counter/log", b"1 -> 2")
    checked, stat, path = swap.commit()
    assert checked is True and stat.version == 1 and path == "/kazoo/counter/log"
    stale = client.transaction()
    stale.set_data("/kazoo/counter", b"3")
    stale.delete("/kazoo/counter/log")
    stale.create("/kazoo/counter")
    replies = stale.commit()
    assert [type(reply) for reply in replies] == [
        RolledBackError, RolledBackError, NodeExistsError], replies
    assert client.get("/kazoo/counter")[0] == b"2"


def access(client):
    client.add_auth("digest", "owner:secret")
    client.create("/kazoo/secret", b"x", acl=[make_digest_acl("owner", "secret", all=True)])
    with connected() as stranger:
        stranger.sync("/kazoo/secret")
        try:
            stranger.get("/kazoo/secret")
            raise AssertionError("a stranger reads")
        except NoAuthError:
            pass
        stranger.add_auth("digest", "owner:secret")
        assert stranger.get("/kazoo/secret")[0] == b"x"


def refused(client, path):
    """Whether a client may not read a node."""
    client.sync(path)
    try:
        client.get(path)
        return False
    except NoAuthError:
        return True


def by_tls(stranger):
    certificate = str(CERTIFICATES / "client.pem")
    with connected(
            "ZOOKEEPER_TLS", use_ssl=True, ca=str(CERTIFICATES / "authority.pem"),
            certfile=certificate, keyfile=certificate) as client:
        client.create("/kazoo/certified", b"x", acl=[make_acl("x509", CERTIFIED, all=True)])
        assert client.get("/kazoo/certified")[0] == b"x"
        assert refused(stranger, "/kazoo/certified")
        client.delete("/kazoo/certified")


def by_sasl(stranger):
    def login(password):
        return {"mechanism": "DIGEST-MD5", "username": "bob", "password": password}
    with connected(sasl_options=login("secret")) as client:
        client.create("/kazoo/bobs", b"x", acl=[make_acl("sasl", "bob", all=True)])
        assert client.get("/kazoo/bobs")[0] == b"x"
        assert refused(stranger, "/kazoo/bobs")
    try:
        with connected(sasl_options=login("guessed")) as guesser:
            guesser.get("/kazoo/bobs")
            raise AssertionError("a wrong password is taken")
    except AuthFailedError:
        pass


def lock(_):
    region = Region()

    def contend(_, client):
        with client.Lock("/kazoo/lock"):
            region.visit()
    in_threads(CONTENDERS, contend)
    assert (region.entries, region.most) == (CONTENDERS, 1), vars(region)


def read_write_lock(client):
    reader = client.ReadLock("/kazoo/rwlock", "reader")
    with connected() as other:
        with reader, other.ReadLock("/kazoo/rwlock", "another"):
            assert not other.WriteLock("/kazoo/rwlock", "writer").acquire(blocking=False)
        with other.WriteLock("/kazoo/rwlock", "writer"):
            assert not reader.acquire(blocking=False)


def semaphore(_):
    region = Region()

    def contend(_, client):
        with client.Semaphore("/kazoo/semaphore", max_leases=2):
            region.visit()
    in_threads(CONTENDERS, contend)
    assert region.entries == CONTENDERS and region.most <= 2, vars(region)


def lease(client):
    first = client.NonBlockingLease(
        "/kazoo/lease", timedelta(seconds=60), identifier="one")
    second = client.NonBlockingLease(
        "/kazoo/lease", timedelta(seconds=60), identifier="two")
    assert first and not second
    pair = [client.MultiNonBlockingLease(
        2, "/kazoo/leases", timedelta(seconds=60), identifier=str(n)) for n in range(3)]
    assert [bool(lease) for lease in pair] == [True, True, False]


def election(_):
    region = Region()

    def campaign(number, client):
        client.Election("/kazoo/election", str(number)).run(region.visit)
    in_threads(CONTENDERS, campaign)
    assert (region.entries, region.most) == (CONTENDERS, 1), vars(region)


def counter(client):
    def count(_, own):
        total = own.Counter("/kazoo/total")
        for _ in range(5):
            total += 1
    in_threads(CONTENDERS, count)
    client.sync("/kazoo/total")
    assert client.Counter("/kazoo/total").value == 5 * CONTENDERS


def simple_queue(client):
    line = client.Queue("/kazoo/queue")
    line.put(b"late", priority=200)
    line.put(b"early", priority=100)
    assert len(line) == 2
    assert (line.get(), line.get(), line.get()) == (b"early", b"late", None)


def locking_queue(client):
    line = client.LockingQueue("/kazoo/locking")
    line.put_all([b"one", b"two"])
    with connected() as other:
        other.sync("/kazoo/locking")
        theirs = other.LockingQueue("/kazoo/locking")
        assert line.get(DEADLINE_S) == b"one"
        assert theirs.get(DEADLINE_S) == b"two"
        assert theirs.consume() and line.release()
        assert theirs.get(DEADLINE_S) == b"one"
        assert theirs.consume()


def barrier(client):
    gate = client.Barrier("/kazoo/barrier")
    gate.create()
    assert gate.wait(0.01) is False
    with connected() as other:
        opener = threading.Timer(0.05, other.Barrier("/kazoo/barrier").remove)
        opener.start()
        assert gate.wait(DEADLINE_S) is True
        opener.join()


def double_barrier(_):
    inside = []

    def take_part(number, client):
        both = client.DoubleBarrier("/kazoo/double", 2, str(number))
        both.enter()
        inside.append(number)
        both.leave()
        assert len(inside) == 2, "left before all were in"
    in_threads(2, take_part)


def party(client):
    with connected() as other:
        ours, theirs = client.Party("/kazoo/party", "one"), other.Party("/kazoo/party", "two")
        ours.join()
        theirs.join()
        client.sync("/kazoo/party")
        assert set(ours) == {"one", "two"}
        theirs.leave()
        client.sync("/kazoo/party")
        assert list(ours) == ["one"]
        shallow = client.ShallowParty("/kazoo/shallow", "one")
        shallow.join()
        assert list(shallow) == ["one"]


def partitioner(_):
    shares = [None, None]
    done = threading.Barrier(2, timeout=DEADLINE_S)

    def take_share(number, client):
        member = client.SetPartitioner(
            "/kazoo/partitions", set=("a", "b", "c", "d"), identifier=str(number),
            time_boundary=0.5)
        while True:
            if member.acquired and len(list(member)) == 2:
                shares[number] = set(member)
                break
            if member.release:
                member.release_set()
            elif member.failed:
                raise AssertionError("the partitioner failed")
            else:
                member.wait_for_acquire(1)
        done.wait()
        member.finish()
    in_threads(2, take_share)
    assert shares[0] | shares[1] == {"a", "b", "c", "d"}, shares


def tree_cache(client):
    client.create("/kazoo/tree/a/b", b"1", makepath=True)
    events = queue.Queue()
    cache = TreeCache(client, "/kazoo/tree")
    cache.listen(lambda event: events.put(
        (event.event_type, event.event_data and event.event_data.path)))

    def await_event(*wanted):
        while events.get(timeout=DEADLINE_S) != wanted:
            pass
    cache.start()
    await_event(TreeEvent.INITIALIZED, None)
    assert cache.get_data("/kazoo/tree/a/b").data == b"1"
    client.set("/kazoo/tree/a/b", b"2")
    await_event(TreeEvent.NODE_UPDATED, "/kazoo/tree/a/b")
    client.create("/kazoo/tree/c")
    await_event(TreeEvent.NODE_ADDED, "/kazoo/tree/c")
    client.delete("/kazoo/tree/a/b")
    await_event(TreeEvent.NODE_REMOVED, "/kazoo/tree/a/b")
    assert set(cache.get_children("/kazoo/tree")) == {"a", "c"}
    cache.close()


def patient_watch(client):
    client.create("/kazoo/patient/one", makepath=True)
    children, changed = PatientChildrenWatch(
        client, "/kazoo/patient", time_boundary=0.1).start().get(timeout=DEADLINE_S)
    assert children == ["one"]
    client.create("/kazoo/patient/two")
    changed.get(timeout=DEADLINE_S)


JOBS = (
    configuration, discovery, transaction, access, by_tls, by_sasl, lock, read_write_lock, semaphore, lease,
    election, counter, simple_queue, locking_queue, barrier, double_barrier, party, partitioner,
    tree_cache, patient_watch)


if __name__ == "__main__":
    jobs.run(JOBS, connected)
