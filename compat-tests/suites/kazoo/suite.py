"""kazoo's own tests, which come with it from PyPI. They start and stop three servers with `java`."""

import random
import socket
from itertools import groupby

import pytests

# The longest takes half a minute.
TEST_DEADLINE_S = 90


def run(context):
    python = pytests.install(context)
    environment = context.environment()
    environment |= {
        "PATH": f"{context.stand_in('java')}:{environment['PATH']}",
        # Without it the original has refused their DIGEST-MD5 since 3.9.
        "SERVER_JVMFLAGS": "-Dzookeeper.fips-mode=false",
        # Only looked at for the class path, which `serve` replaces.
        "ZOOKEEPER_CLASSPATH": "unused",
        "ZOOKEEPER_PORT_OFFSET": str(free_ports()),
    }
    nodes = [node for node in collect(python, environment, context)
             if context.wanted(pytests.name_of(node))]
    package = next((context.cache / "venv/lib").glob("python*/site-packages")) / "kazoo/tests"
    results = {}
    with context.log() as log:
        # Each file by itself: a test that hangs takes the process with it.
        for _, tests in groupby(nodes, key=lambda node: node.partition("::")[0]):
            tests = list(tests)
            output = pytest(python, environment, context, [
                str(package / node.rpartition("tests/")[2]) for node in tests])
            log.write(output)
            outcomes = pytests.read(output)
            for name in map(pytests.name_of, tests):
                results[name] = outcomes.get(name, ("fail", "no end in time"))
    return results


def pytest(python, environment, context, arguments):
    return pytests.run(python, environment, context, TEST_DEADLINE_S, arguments)


def free_ports():
    """Where thirty ports in a row are free: each server has ten."""
    while True:
        first = random.randrange(21000, 30000, 10)
        try:
            for port in range(first, first + 30):
                with socket.socket() as listener:
                    listener.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue


def collect(python, environment, context):
    """The id of every test, in the order of their files."""
    listing = pytest(python, environment, context, [
        "--collect-only", "--quiet", "--quiet", "--pyargs", "kazoo.tests"])
    return [line for line in listing.splitlines() if "::" in line]
