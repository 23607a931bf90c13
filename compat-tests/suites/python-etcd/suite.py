"""python-etcd's own tests of a server, which come with it from PyPI. They start `etcd` from PATH, on
ports of their choice, up to three at once."""

import pytests

# The longest starts three servers, two seconds each.
TEST_DEADLINE_S = 90
# The others ask no server.
FILES = ("test_auth.py", "integration/test_simple.py", "integration/test_ssl.py")


def run(context):
    python = pytests.install(context)
    etcd = context.cache / "bin/etcd"
    etcd.parent.mkdir(exist_ok=True)
    etcd.unlink(missing_ok=True)
    etcd.symlink_to(context.serve.with_name("etcd"))
    environment = context.environment()
    environment["PATH"] = f"{etcd.parent}:{environment['PATH']}"
    package = next((context.cache / "venv/lib").glob("python*/site-packages")) / "etcd/tests"
    results = {}
    with context.log() as log:
        # Each file by itself: they use the same ports.
        for file in FILES:
            output = pytests.run(
                python, environment, context, TEST_DEADLINE_S, [str(package / file)])
            log.write(output)
            outcomes = pytests.read(output)
            results |= {name: outcome for name, outcome in outcomes.items() if context.wanted(name)}
    return results
