"""kazoo's own tests, which come with it from PyPI. They start and stop three servers with `java`."""

import random
import re
import socket
import subprocess
import sys
from itertools import groupby

# The longest takes half a minute.
TEST_DEADLINE_S = 90


def run(context):
    python = context.cache / "venv/bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", context.cache / "venv"], check=True)
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "-r", context.folder / "requirements.txt"], check=True)
    java = context.cache / "bin/java"
    java.parent.mkdir(exist_ok=True)
    java.unlink(missing_ok=True)
    java.symlink_to(context.serve)
    environment = context.environment()
    environment |= {
        "PATH": f"{java.parent}:{environment['PATH']}",
        # Without it the original has refused their DIGEST-MD5 since 3.9.
        "SERVER_JVMFLAGS": "-Dzookeeper.fips-mode=false",
        # Only looked at for the class path, which `serve` replaces.
        "ZOOKEEPER_CLASSPATH": "unused",
        "ZOOKEEPER_PORT_OFFSET": str(free_ports()),
    }
    nodes = [node for node in collect(python, environment, context)
             if context.wanted(name_of(node))]
    package = next((context.cache / "venv/lib").glob("python*/site-packages")) / "kazoo/tests"
    results = {}
    with (context.cache / f"output-{context.target}.txt").open("w") as log:
        # Each file by itself: a test that hangs takes the process with it.
        for _, tests in groupby(nodes, key=lambda node: node.partition("::")[0]):
            tests = list(tests)
            output = pytest(python, environment, context, [
                str(package / node.rpartition("tests/")[2]) for node in tests])
            log.write(output)
            outcomes = read(output)
            for name in map(name_of, tests):
                results[name] = outcomes.get(name, ("fail", "no end in time"))
    return results


def pytest(python, environment, context, arguments):
    return context.output_of(
        [python, "-m", "pytest", "-p", "no:cacheprovider", "--timeout-method=thread",
         f"--timeout={TEST_DEADLINE_S}", "--verbose", "--tb=short", "--color=no", *arguments],
        environment)


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


def name_of(node):
    """`test_lock.KazooLockTests.test_lock` of a node's id."""
    path, *names = node.split("::")
    return ".".join([path.rpartition("/")[2].removesuffix(".py"), *names])


def read(output):
    outcomes = {"PASSED": "pass", "FAILED": "fail", "ERROR": "fail", "SKIPPED": "skip"}
    results = {}
    for line in output.splitlines():
        seen = re.match(r"(\S+::\S+) (PASSED|FAILED|ERROR|SKIPPED)", line)
        if seen:
            results[name_of(seen[1])] = (outcomes[seen[2]], "")
        summary = re.match(r"(?:FAILED|ERROR) (\S+::\S+) - (.*)", line)
        if summary:
            results[name_of(summary[1])] = ("fail", summary[2])
    return results
