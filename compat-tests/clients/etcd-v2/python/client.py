"""python-etcd does a short real job against ENDPOINTS."""

import os
import queue
import sys
import threading
import traceback
from urllib.parse import urlsplit

import etcd

DEADLINE_S = 30
HOSTS = tuple((url.hostname, url.port) for url in map(urlsplit, os.environ["ENDPOINTS"].split(",")))


def connect():
    return etcd.Client(host=HOSTS, allow_reconnect=True, read_timeout=DEADLINE_S)


def configuration(client):
    client.write("/py/config/level", "info")
    read = client.read("/py/config/level")
    assert read.value == "info" and not read.dir, read
    client.write("/py/config/level", "warn", prevExist=True)
    event = client.watch("/py/config", index=read.modifiedIndex + 1, recursive=True)
    assert (event.action, event.value, event._prev_node.value) == ("update", "warn", "info"), event
    client.write("/py/config/b", "2")
    client.write("/py/config/a/x", "1")
    tree = client.read("/py", recursive=True, sorted=True)
    assert [leaf.key for leaf in tree.leaves] == [
        "/py/config/a/x", "/py/config/b", "/py/config/level"], tree
    client.delete("/py/config/b")
    assert "/py/config/b" not in client and "/py/config/level" in client


def conditions(client):
    client.write("/py/counter", "1", prevExist=False)
    raises(etcd.EtcdAlreadyExist, lambda: client.write("/py/counter", "1", prevExist=False))
    raises(etcd.EtcdCompareFailed, lambda: client.test_and_set("/py/counter", "3", "2"))
    assert client.test_and_set("/py/counter", "2", "1").value == "2"
    counter = client.read("/py/counter")
    counter.value = "3"
    assert client.update(counter).value == "3"
    raises(etcd.EtcdKeyNotFound, lambda: client.read("/py/none"))
    raises(etcd.EtcdNotFile, lambda: client.delete("/py"))
    raises(etcd.EtcdDirNotEmpty, lambda: client.delete("/py", dir=True))
    assert client.pop("/py/counter").value == "3"


def in_order(client):
    for number in range(10):
        client.write("/py/queue", str(number), append=True)
    listed = client.read("/py/queue", sorted=True)
    assert [child.value for child in listed.children] == [str(n) for n in range(10)], listed


def discovery(client):
    client.write("/py/services/web", "10.0.0.1:80", ttl=2)
    at = client.refresh("/py/services/web", ttl=2)
    end = client.watch("/py/services", index=at.modifiedIndex + 1, recursive=True)
    assert (end.action, end._prev_node.value) == ("expire", "10.0.0.1:80"), end


def watching(client):
    seen = queue.Queue()

    def watch():
        with_own = connect()
        for event in with_own.eternal_watch("/py/events", index=start, recursive=True):
            seen.put(event.value)
            if event.value == "9":
                return
    start = client.write("/py/begin", "x").modifiedIndex
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    for number in range(10):
        client.write(f"/py/events/{number}", str(number))
    assert [seen.get(timeout=DEADLINE_S) for _ in range(10)] == [str(n) for n in range(10)]


def lock(client):
    counter = [0]
    failures = []

    def contend():
        try:
            held = etcd.Lock(connect(), "py-lock")
            assert held.acquire(blocking=True, lock_ttl=20, timeout=DEADLINE_S)
            before = counter[0]
            threading.Event().wait(0.01)
            counter[0] = before + 1
            held.release()
        except Exception as error:
            failures.append(error)
    threads = [threading.Thread(target=contend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert not failures and counter[0] == 4, (failures, counter)


def cluster(client):
    assert len(client.machines) == len(HOSTS), client.machines
    assert client.leader["clientURLs"] and len(client.members) == len(HOSTS)
    assert client.stats["state"] in ("StateLeader", "StateFollower")
    assert client.store_stats["setsSuccess"] > 0
    assert client.version and client.cluster_version


def raises(kind, call):
    try:
        call()
    except kind:
        return
    raise AssertionError(f"no {kind.__name__}")


def main():
    passed = failed = 0
    for job in (configuration, conditions, in_order, discovery, watching, lock, cluster):
        client = connect()
        try:
            job(client)
            passed += 1
        except Exception:
            print(f"FAIL {job.__name__}")
            traceback.print_exc()
            failed += 1
        try:
            client.delete("/py", recursive=True)
        except etcd.EtcdKeyNotFound:
            pass
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
