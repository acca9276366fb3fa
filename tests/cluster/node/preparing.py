"""`scripts/cluster prepare`: what a node needs on a bare Debian machine, installed and built. Layer: I/O rim."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable

from cluster.node import build, images

INSTALL_SECONDS = 600.0
QUIET = {"DEBIAN_FRONTEND": "noninteractive"}


def prepare(say: Callable[[str], None]) -> None:
    """Installs the Debian packages that are missing, builds the node's binaries and the base image into the cache.

    Raises Missing for what it cannot get: no root, no apt, no Go; ImageFailed; CalledProcessError where a build fails.
    """
    absent = build.absent_packages()
    if absent:
        say(f"installing {' '.join(absent)}")
        _install(absent)
    build.check_programs()
    say("building the components, where the cache has none: the first time some minutes")
    build.binary()
    build.name_server()
    images.base()


def _install(packages: list[str]) -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise build.Missing(f"only root on a Debian machine can install these packages: {' '.join(packages)}")
    for words in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        try:
            done = subprocess.run(
                ["apt-get", "-q", *words],
                env={**os.environ, **QUIET},
                capture_output=True,
                text=True,
                timeout=INSTALL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise build.Missing(f"apt-get {words[0]} took longer than {INSTALL_SECONDS:.0f} s") from late
        if done.returncode:
            said = "\n".join((done.stdout + done.stderr).splitlines()[-10:])
            raise build.Missing(f"apt-get {words[0]} failed with status {done.returncode}:\n{said}")
