"""The C library's own tests, from Debian's source of ZooKeeper, linked with Debian's library. They
start servers with ZooKeeper's scripts around `java`."""

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FIXTURE_DEADLINE_S = 300
# What the library's own build would find out about the system, as far as the tests ask.
CONFIG = "#define POLL_NFDS_TYPE nfds_t\n"
# Threads, the static library's symbols, and the script that starts servers.
DEFINES = ["-DTHREADED", "-DUSE_STATIC_LIB", '-DZKSERVER_CMD="tests/zkServer.sh"']
# What the program says when it has come to its end.
END = re.compile(r"^(OK \(\d+\)|Failures !!!|ERROR: No test named)", re.MULTILINE)


def run(context):
    root = source(context)
    client = root / "zookeeper-client/zookeeper-client-c"
    program = build(context, client)
    environment = context.environment()
    environment |= {
        "PATH": f"{context.stand_in('java')}:{environment['PATH']}",
        "base_dir": str(root), "ZKROOT": str(root)}
    # What servers of another run have left: data, and the numbers of their processes.
    shutil.rmtree(root / "build", ignore_errors=True)
    (root / "build/tmp").mkdir(parents=True)
    results = {}
    with context.log() as log:
        def tests(what):
            command = f"cd {client} && exec timeout {FIXTURE_DEADLINE_S} {program} {what}"
            output = context.output_of(["sh", "-c", command], environment)
            log.write(output)
            return output
        for fixture, cases in fixtures(client).items():
            names = [f"{fixture}::{case}" for case in cases]
            if not any(map(context.wanted, names)):
                continue
            output = tests(fixture)
            outcomes = read(output, names)
            if not END.search(output):
                # One that aborts takes those behind it along: they get their turn by themselves.
                for name in (name for name in names if not begun(output, name)):
                    del outcomes[name]
                    outcomes |= read(tests(name), [name])
            results |= {name: said for name, said in outcomes.items() if context.wanted(name)}
    return results


def source(context):
    """The unpacked source, from a list of sources that is none of the machine's."""
    found = next(context.cache.glob("*zookeeper-*/zookeeper-client"), None)
    if found is None:
        system = Path("/etc/os-release").read_text()
        release = re.search(r'^VERSION_CODENAME="?(\w+)', system, re.MULTILINE)[1]
        lists = context.cache / "lists"
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        (context.cache / "sources").write_text(
            f"deb-src http://deb.debian.org/debian {release} main\n")
        apt = ["apt-get", "-qq", "-o", f"Dir::Etc::SourceList={context.cache}/sources",
               "-o", "Dir::Etc::SourceParts=/dev/null", "-o", f"Dir::State::Lists={lists}"]
        for command in (["update"], ["source", "--download-only", "zookeeper"]):
            subprocess.run([*apt, *command], cwd=context.cache, check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        archive = next(context.cache.glob("zookeeper_*.orig.tar.gz"))
        shutil.unpack_archive(archive, context.cache)
        found = next(context.cache.glob("*zookeeper-*/zookeeper-client"))
    root = found.parent
    for script in (root / "zookeeper-client/zookeeper-client-c/tests/zkServer.sh",
                   *(root / "bin").glob("*.sh")):
        script.chmod(0o755)
    return root


def build(context, client):
    """The tests as a program; the library in it is Debian's."""
    objects = context.cache / "objects"
    objects.mkdir(exist_ok=True)
    (objects / "config.h").write_text(CONFIG)

    def compile(file):
        target = objects / f"{file.stem}.o"
        if not target.exists():
            subprocess.run(
                ["g++", "-w", *DEFINES, "-Iinclude", "-Itests", "-Isrc", "-I.", f"-I{objects}",
                 "-I/usr/include/zookeeper", "-include", "time.h", "-c", file, "-o", target],
                cwd=client, check=True)
        return target
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        compiled = list(pool.map(compile, sorted((client / "tests").glob("*.cc"))))
    wrappers = [word for name in ("wrappers.opt", "wrappers-mt.opt")
                for word in (client / "tests" / name).read_text().split()]
    program = context.cache / "tests"
    if not program.exists():
        subprocess.run(
            ["g++", "-o", program, *compiled, *wrappers, "-Wl,-Bstatic", "-lzookeeper_mt",
             "-Wl,-Bdynamic", "-lcppunit", "-lpthread", "-ldl", "-lm"], check=True)
    return program


def fixtures(client):
    """The tests of each fixture."""
    found, comments = {}, re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
    for file in sorted((client / "tests").glob("Test*.cc")):
        text = comments.sub("", file.read_text())
        for fixture, body in re.findall(
                r"CPPUNIT_TEST_SUITE\(\s*(\w+)\s*\);(.*?)CPPUNIT_TEST_SUITE_END", text, re.DOTALL):
            found.setdefault(fixture, []).extend(re.findall(r"CPPUNIT_TEST\(\s*(\w+)\s*\)", body))
    return found


def begun(output, name):
    return f"\n{name}" in output


def read(output, names):
    """What became of each. A test's name stands before what its servers say, its outcome behind.
    A program that has come to its end was built without those that it does not name: they are for
    one thread, or for TLS, which Debian's library is built without."""
    results = {}
    ended = END.search(output)
    for name in names:
        if ended and not begun(output, name):
            continue
        begin = output.find(name)
        rest = output[begin + len(name):] if begin >= 0 else ""
        ends = [rest.find(other) for other in names if other != name and rest.find(other) >= 0]
        rest = rest[:min(ends)] if ends else rest
        seen = re.search(r": elapsed \d+ : (OK|assertion|error)", rest)
        if seen is None:
            results[name] = ("fail", "no end: " + rest[-200:])
        elif seen[1] == "OK":
            results[name] = ("pass", "")
        else:
            said = re.search(r"^: .*$", output[begin:], re.MULTILINE)
            results[name] = ("fail", said[0][:300] if said else seen[1])
    return results
