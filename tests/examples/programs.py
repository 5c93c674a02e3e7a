"""The examples for publishers as programs: their models made of the AsyncAPI document, compiled and
checked, ready to be run.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox.processes import install_debian
from tests.asyncapi.node import TOOL_LIMIT, installed, run_tool
from tests.support import REPOSITORY
from tests.support.names import NAMES
from workers.asyncapi import document

EXAMPLES = REPOSITORY / "examples"
_JARS = Path("/usr/share/java")
#: Of Debian: RabbitMQ's Java client and Jackson, with what they need.
_JARS_OF = {
    "librabbitmq-client-java": "amqp-client.jar",
    "libjackson2-databind-java": "jackson-databind.jar",
    "libjackson2-core-java": "jackson-core.jar",
    "libjackson2-annotations-java": "jackson-annotations.jar",
    "libslf4j-java": "slf4j-api.jar",
}


@dataclass(frozen=True, slots=True)
class Program:
    """An example that takes the words `servers`, `stop`, `order` and `results`."""

    command: list[str]

    def start(self, url: str, *words: str, wait: float = 60) -> "subprocess.Popen[str]":
        """Start it as tenant-a at this broker; it follows what has no end for `wait` seconds."""
        environment = os.environ | {"ECS_URL": url, "ECS_TENANT": "tenant-a", "ECS_WAIT": str(wait)}
        return subprocess.Popen(
            [*self.command, *words],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def lines_of(process: "subprocess.Popen[str]", seconds: float = 60) -> list[dict[str, object]]:
    """Return what it has printed when it has ended, as it should."""
    try:
        out, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, said = process.communicate()
        raise AssertionError(f"does not end: {out}\n{said}") from None
    sys.stderr.write(said)
    assert process.returncode == 0, said
    return [json.loads(line) for line in out.splitlines()]


def node(folder: Path) -> Program:
    """The Node example, its types checked against the models."""
    _copy(EXAMPLES / "node", folder)
    _make_models("typescript", folder / "models")
    (folder / "node_modules").symlink_to(installed(EXAMPLES / "node") / "node_modules")
    _run(["npm", "run", "--silent", "check"], folder)
    return Program(["node", str(folder / "example.js")])


def java(folder: Path) -> Program:
    """The example on RabbitMQ's Java client, compiled."""
    jars = [_JARS / name for name in _JARS_OF.values()]
    install_debian(
        ["default-jdk-headless", *_JARS_OF],
        lambda: shutil.which("javac") is not None and all(one.exists() for one in jars),
        "a Java compiler, RabbitMQ's Java client or Jackson",
    )
    _copy(EXAMPLES / "java" / "rabbitmq", folder)
    shutil.copy(EXAMPLES / "java" / "Example.java", folder)
    _make_models("java", folder / "ecs" / "models")
    path = os.pathsep.join(map(str, jars))
    options = ["-Xlint:all,-serial,-path,-cast", "-Werror", "-d", "classes"]
    paths = ["-classpath", path, "-sourcepath", str(folder)]
    _run(["javac", *options, *paths, *map(str, folder.glob("*.java"))], folder)
    return Program(["java", "-cp", f"{folder / 'classes'}{os.pathsep}{path}", "Example"])


def spring(folder: Path) -> Program:
    """The example on Spring AMQP, compiled by Maven; skipped where Maven cannot get its packages."""
    install_debian(
        ["default-jdk-headless", "maven"],
        lambda: shutil.which("javac") is not None and shutil.which("mvn") is not None,
        "a Java compiler or Maven",
    )
    sources = folder / "src" / "main" / "java"
    sources.mkdir(parents=True)
    shutil.copy(EXAMPLES / "java" / "spring" / "pom.xml", folder)
    shutil.copy(EXAMPLES / "java" / "spring" / "EcsClient.java", sources)
    shutil.copy(EXAMPLES / "java" / "Example.java", sources)
    _maven(folder, "dependency:build-classpath", "-Dmdep.outputFile=path")
    _make_models("java", sources / "ecs" / "models")
    _maven(folder, "compile")
    path = (folder / "path").read_text(encoding="utf-8").strip()
    return Program(["java", "-cp", f"{folder / 'target/classes'}{os.pathsep}{path}", "Example"])


def _maven(folder: Path, *words: str) -> None:
    command = ["mvn", "--batch-mode", "--quiet", *words]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=TOOL_LIMIT, check=False
    )
    (artifact,) = re.findall(r"Could not transfer artifact (\S+)", done.stdout)[:1] or [None]
    if artifact is not None:
        pytest.skip(f"Spring AMQP is not run: Maven reaches no repository here that has {artifact}")
    assert done.returncode == 0, done.stdout[-3000:]


LANGUAGES: dict[str, Callable[[Path], Program]] = {"node": node, "java": java, "spring": spring}


def _copy(home: Path, folder: Path) -> None:
    shutil.copytree(
        home, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules", "models")
    )


def _make_models(language: str, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    written = folder.parent / "asyncapi.json"
    written.write_text(json.dumps(document(NAMES)), encoding="utf-8")
    run_tool(language, written, folder, EXAMPLES / "models.mjs")


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=TOOL_LIMIT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
