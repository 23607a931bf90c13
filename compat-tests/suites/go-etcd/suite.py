"""go-etcd's own tests, which come with its module. They ask three servers on ports 4001 to 4003."""

import re
import subprocess
import time
import urllib.request

TEST_DEADLINE_S = 60
START_DEADLINE_S = 60
MODULE = "github.com/coreos/go-etcd/etcd"
PORTS = (4001, 4002, 4003)


def run(context):
    for name in ("go.mod", "go.sum", "tools.go"):
        (context.cache / name).write_text((context.folder / name).read_text())
    environment = context.environment() | {"GOFLAGS": "-mod=readonly"}
    program = context.cache / "tests"
    subprocess.run(["go", "test", "-vet=off", "-c", "-o", program, MODULE],
                   env=environment, cwd=context.cache, check=True)
    servers = [start(context, environment, number) for number in range(len(PORTS))]
    try:
        await_all()

        def tests(*arguments):
            return context.output_of([program, *arguments], environment)
        every = [line for line in tests("-test.list=.").splitlines() if line.startswith("Test")]
        results = {}
        with context.log() as log:
            # Each by itself: they count goroutines.
            for test in filter(context.wanted, every):
                output = tests("-test.v", f"-test.timeout={TEST_DEADLINE_S}s", f"-test.run=^{test}$")
                log.write(output)
                verdict = re.search(rf"^--- (PASS|FAIL|SKIP): {test} ", output, re.MULTILINE)
                outcome = verdict.group(1).lower() if verdict else "fail"
                results[test] = (outcome, output[-800:])
        return results
    finally:
        for server in servers:
            server.kill()
            server.wait()


def start(context, environment, number):
    data = context.cache / f"data-{number}"
    subprocess.run(["rm", "-rf", data], check=True)
    peers = ",".join(f"m{i}=http://localhost:{port + 3000}" for i, port in enumerate(PORTS))
    client, peer = f"http://localhost:{PORTS[number]}", f"http://localhost:{PORTS[number] + 3000}"
    with (context.cache / f"server-{number}.txt").open("w") as log:
        return subprocess.Popen(
            [context.serve.with_name("etcd"), f"--name=m{number}", f"--data-dir={data}",
             f"--listen-client-urls=http://127.0.0.1:{PORTS[number]}",
             f"--advertise-client-urls={client}",
             f"--listen-peer-urls=http://127.0.0.1:{PORTS[number] + 3000}",
             f"--initial-advertise-peer-urls={peer}",
             f"--initial-cluster={peers}"],
            env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def await_all():
    until = time.monotonic() + START_DEADLINE_S
    for port in PORTS:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).read()
                break
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
