"""Does with Python's etcd3 what services do: configuration, discovery, a lock and an election."""

import os
import queue
import threading
from urllib.parse import urlsplit

import etcd3

import jobs

DEADLINE_S = 30


def connect():
    url = urlsplit(os.environ["ENDPOINTS"].split(",")[0])
    return etcd3.client(host=url.hostname, port=url.port, timeout=DEADLINE_S)


def configuration(client):
    client.put("py/config/level", "info")
    value, meta = client.get("py/config/level")
    assert value == b"info", value
    events = queue.Queue()
    watch = client.add_watch_callback(
        "py/config/", lambda response: [events.put(e) for e in response.events],
        range_end="py/config0", start_revision=meta.mod_revision + 1)
    client.put("py/config/level", "warn")
    client.delete("py/config/level")
    put, delete = events.get(timeout=DEADLINE_S), events.get(timeout=DEADLINE_S)
    client.cancel_watch(watch)
    assert isinstance(put, etcd3.events.PutEvent) and put.value == b"warn", put
    assert isinstance(delete, etcd3.events.DeleteEvent), delete


def transaction(client):
    client.put("py/counter", "1")

    def swap(before, after):
        return client.transaction(
            compare=[client.transactions.value("py/counter") == before],
            success=[client.transactions.put("py/counter", after)],
            failure=[client.transactions.get("py/counter")])
    assert swap("1", "2")[0]
    succeeded, replies = swap("1", "3")
    assert not succeeded and replies[0][0][0] == b"2", replies
    assert client.put_if_not_exists("py/counter", "9") is False
    assert client.replace("py/counter", "2", "3") is True
    assert [v for v, _ in client.get_prefix("py/counter")] == [b"3"]
    assert client.delete_prefix("py/counter").deleted == 1


def discovery(client):
    lease = client.lease(5)
    client.put("py/services/web/1", "10.0.0.1:80", lease)
    assert [r.TTL for r in lease.refresh()] == [5]
    assert 0 < lease.remaining_ttl <= lease.granted_ttl == 5
    assert [value for value, _ in client.get_prefix("py/services/web/")] == [b"10.0.0.1:80"]
    lease.revoke()
    assert list(client.get_prefix("py/services/web/")) == []


def lock(client):
    counter = [0]
    failures = []

    def contend():
        try:
            with connect() as own:
                held = own.lock("py-lock", ttl=10)
                # The library begins to watch after it looked, so that it can miss the release; and
                # as a context manager it goes on even without the lock.
                while not held.acquire(timeout=1):
                    pass
                before = counter[0]
                threading.Event().wait(0.01)
                counter[0] = before + 1
                assert held.release()
        except Exception as error:
            failures.append(error)
    threads = [threading.Thread(target=contend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert not failures and counter[0] == 4, (failures, counter)


def election(client):
    def campaign(name):
        lease = client.lease(10)
        won = client.transaction(
            compare=[client.transactions.create("py/leader") == 0],
            success=[client.transactions.put("py/leader", name, lease)],
            failure=[client.transactions.get("py/leader")])[0]
        return won, lease
    won, lease = campaign("one")
    assert won
    lost, _ = campaign("two")
    assert not lost
    events, cancel = client.watch("py/leader")
    lease.revoke()
    assert isinstance(next(events), etcd3.events.DeleteEvent)
    cancel()
    won, lease = campaign("two")
    assert won and client.get("py/leader")[0] == b"two"
    lease.revoke()


def cluster(client):
    assert client.status().version
    assert all(member.client_urls for member in client.members)
    assert list(client.list_alarms()) == []
    client.put("py/compact", "1")
    revision = client.get("py/compact")[1].mod_revision
    client.compact(revision, physical=True)
    client.defragment()


def main():
    # The library's watcher thread trips over the channel that close() takes away from it.
    threading.excepthook = lambda args: None
    jobs.run((configuration, transaction, discovery, lock, election, cluster), connect)


if __name__ == "__main__":
    main()
