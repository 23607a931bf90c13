"""go-zookeeper's own tests, which come with its module. They start servers with `zkServer.sh`, and
kill them."""

import re
import subprocess

TEST_DEADLINE_S = 180
MODULE = "github.com/go-zookeeper/zk"
# The newest original whose answer to `srvr` it can read: later ones spell the date of their build
# otherwise.
ORIGINAL = "3.6.4"


def run(context):
    for name in ("go.mod", "go.sum", "tools.go"):
        (context.cache / name).write_text((context.folder / name).read_text())
    environment = context.environment(ORIGINAL) | {
        "ZOOKEEPER_BIN_PATH": str(context.stand_in("zkServer.sh")), "ZK_VERSION": ORIGINAL,
        "GOFLAGS": "-mod=readonly"}
    program = context.cache / "tests"
    subprocess.run(["go", "test", "-c", "-o", program, MODULE],
                   env=environment, cwd=context.cache, check=True)

    def tests(*arguments):
        return context.output_of([program, *arguments], environment)
    every = [line for line in tests("-test.list=.").splitlines() if line.startswith("Test")]
    results = {}
    with context.log() as log:
        # Each by itself: one that panics would take the others with it.
        for test in filter(context.wanted, every):
            output = tests("-test.v", f"-test.timeout={TEST_DEADLINE_S}s", f"-test.run=^{test}$")
            log.write(output)
            verdict = re.search(rf"^--- (PASS|FAIL|SKIP): {test} ", output, re.MULTILINE)
            outcome = verdict.group(1).lower() if verdict else "fail"
            results[test] = (outcome, output[-800:])
    return results
