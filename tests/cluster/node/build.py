"""Builds the node's Go programs once and keeps them in the cache. Layer: I/O rim."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.node import plan

BUILD_SECONDS = 1800.0


class Missing(Exception):
    """Something this machine needs for a node is not there; the message says what to install."""


def absent_packages() -> list[str]:
    """Debian packages of which a program is missing, in order. A program that came by another way is as good."""
    absent = {package for program, package in plan.PACKAGES.items() if shutil.which(program, path=_path()) is None}
    if not plan.CNI_BIN.is_dir():
        absent.add("containernetworking-plugins")
    return sorted(absent)


def check_programs() -> None:
    """Raises Missing, naming every package at once."""
    if os.geteuid() != 0:
        raise Missing("a node needs root: network bridges, mounts and control groups")
    absent = absent_packages()
    if absent:
        raise Missing(f"scripts/cluster prepare installs these Debian packages: {' '.join(absent)}")


def api_binary() -> Path:
    """The same binary, for an API server alone. Raises Missing when that needs what this machine has not; no root is needed."""
    absent = {
        plan.PACKAGES[name] for name in ("etcd", "openssl", "kubectl") if shutil.which(name, path=_path()) is None
    }
    if absent:
        raise Missing(f"scripts/cluster prepare installs these Debian packages: {' '.join(sorted(absent))}")
    return binary()


def binary() -> Path:
    """The binary of every Kubernetes component; built if the cache has none. Raises Missing, CalledProcessError."""
    major, minor, _ = plan.KUBE_VERSION.split(".")
    version = "k8s.io/component-base/version"
    flags = f"-X {version}.gitVersion=v{plan.KUBE_VERSION} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
    return _built(plan.MODULE, "kube", flags)


def name_server() -> Path:
    """CoreDNS; built if the cache has none. Raises Missing, CalledProcessError."""
    return _built(plan.DNS_MODULE, "coredns")


def _built(module: Path, name: str, flags: str = "") -> Path:
    built = _place(module, name)
    if built.exists():
        return built
    go = _go()
    built.parent.mkdir(parents=True, exist_ok=True)
    fresh = built.with_name(f"{name}.{os.getpid()}")
    with _alone(built.with_name(f"{name}.lock")):
        if built.exists():
            return built
        subprocess.run(
            [go, "build", "-trimpath", "-ldflags", f"-s -w {flags}", "-o", str(fresh), "."],
            cwd=module,
            env={**os.environ, "CGO_ENABLED": "0"},
            check=True,
        )
        os.replace(fresh, built)
    return built


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """One process at a time, for each build takes every core for minutes; a process that ends lets go. Raises Missing."""
    deadline = time.monotonic() + BUILD_SECONDS
    with file.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Missing(
                        f"another process has been building for {BUILD_SECONDS:g} s; it holds {file}"
                    ) from None
                time.sleep(0.2)
            else:
                yield
                return


def _place(module: Path, name: str) -> Path:
    return plan.cache() / plan.module_key(module) / name


def _go() -> str:
    found = shutil.which("go", path=_path())
    if found is None:
        raise Missing("install Go 1.26 or newer: the node's components are built from their modules")
    return found


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/local/go/bin"])
