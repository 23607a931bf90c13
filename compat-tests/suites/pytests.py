"""Suites whose tests pytest runs."""

import re
import subprocess
import sys


def install(context):
    """A Python of the suite's own, with what its requirements.txt asks PyPI for."""
    python = context.cache / "venv/bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", context.cache / "venv"], check=True)
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "-r", context.folder / "requirements.txt"], check=True)
    return python


def run(python, environment, context, deadline_s, arguments):
    """What pytest prints; a test has `deadline_s`."""
    return context.output_of(
        [python, "-m", "pytest", "-p", "no:cacheprovider", "--timeout-method=thread",
         f"--timeout={deadline_s}", "--verbose", "--tb=short", "--color=no", *arguments],
        environment)


def name_of(node):
    """`test_lock.KazooLockTests.test_lock` of a node's id."""
    path, *names = node.split("::")
    return ".".join([path.rpartition("/")[2].removesuffix(".py"), *names])


def read(output):
    """The outcomes by the names of the tests."""
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
