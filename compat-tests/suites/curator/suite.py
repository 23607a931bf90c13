"""Curator's own tests, from the jars of tests on Maven Central. They run their servers inside their
JVM: for the original that is left alone, for ours a class of the same name starts processes."""

import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as xml
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path

# Some classes have fifty tests of a few seconds each.
CLASS_DEADLINE_S = 600
MODULES = ("curator-client", "curator-framework", "curator-recipes")


def run(context):
    shutil.copy(context.folder / "pom.xml", context.cache)
    shutil.copytree(context.folder / "src", context.cache / "src", dirs_exist_ok=True)
    subprocess.run(
        ["mvn", "--batch-mode", "--quiet", "compile", "dependency:build-classpath",
         "-Dmdep.outputFile=classpath"],
        cwd=context.cache, check=True, stdout=subprocess.DEVNULL)
    classpath = (context.cache / "classpath").read_text()
    jars = {module: jar for jar in classpath.split(":") for module in MODULES
            if jar.endswith("-tests.jar") and f"/{module}/" in jar}
    if context.target == "triglot":
        classpath = f"{context.cache}/target/classes:{classpath}"
    environment = context.environment() | {"SERVE": str(context.serve)}
    results = {}
    with context.log() as log:
        for jar in jars.values():
            for name in classes(jar, context):
                log.write(f"==> {name}\n")
                with tempfile.TemporaryDirectory() as reports:
                    log.write(context.output_of(
                        ["timeout", str(CLASS_DEADLINE_S), environment["REAL_JAVA"], "-Xmx1g",
                         "-XX:TieredStopAtLevel=1", "-cp", classpath,
                         "org.junit.platform.console.ConsoleLauncher", f"--select-class={name}",
                         "--include-classname=.*", "--details=none", f"--reports-dir={reports}"],
                        environment))
                    results |= read(Path(reports), name.rpartition(".")[2], context)
                log.flush()
    return results


def classes(jar, context):
    """The classes of tests that may have one that is wanted."""
    for entry in sorted(zipfile.ZipFile(jar).namelist()):
        name = entry.removesuffix(".class").replace("/", ".")
        simple = name.rpartition(".")[2]
        wanted = not context.patterns or any(
            fnmatchcase(simple, pattern.partition(".")[0]) for pattern in context.patterns)
        if entry.endswith(".class") and "Test" in simple and "$" not in simple and wanted:
            yield name


def read(reports, simple, context):
    results = {}
    reports = list(reports.glob("*.xml"))
    for report in reports:
        for case in xml.parse(report).iter("testcase"):
            name = f"{simple}.{case.get('name').partition('(')[0]}"
            outcome, detail = "pass", ""
            for kind in ("failure", "error", "skipped"):
                found = case.find(kind)
                if found is not None:
                    outcome = "skip" if kind == "skipped" else "fail"
                    detail = (found.get("message") or found.text or "")[:400]
            if context.wanted(name):
                # One with parameters runs several times: it passes when all do.
                if results.get(name, ("pass", ""))[0] == "pass":
                    results[name] = (outcome, detail)
    if not reports:
        results[f"{simple}.*"] = ("fail", "no end in time")
    return results
