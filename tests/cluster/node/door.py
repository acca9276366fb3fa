"""`scripts/cluster`: a node of its own for developing, kept up by a process in the background. Layer: composition.

prepare  installs and builds what a node needs, on a Debian machine as root
up       starts a node and prints its KUBECONFIG; a KUBECONFIG that is given is used instead, and nothing is started
status   says whether one runs
load     gives it an image: an archive, or the name of one that buildah holds
down     ends it; nothing of it is left
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from subprocess import CalledProcessError

from cluster.node import plan
from cluster.node.build import Missing
from cluster.node.children import Died
from cluster.node.images import ImageFailed, exported
from cluster.node.network import Taken
from cluster.node.node import Node, NotUp, StillMounted
from cluster.node.preparing import prepare

UP_SECONDS = 1800.0  # the first time, the components are built
DOWN_SECONDS = 120.0
STEP = 0.2
CURRENT = "current"

FAULTS = (Missing, CalledProcessError, Taken, NotUp, Died, ImageFailed, StillMounted)
"""All that a node may fail to come up with."""


def main() -> int:
    """Runs one command; the exit status."""
    shape = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(prog="scripts/cluster", description=__doc__, formatter_class=shape)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("prepare")
    commands.add_parser("up")
    commands.add_parser("down")
    commands.add_parser("status")
    commands.add_parser("load").add_argument("image", help="an OCI or Docker archive, or an image's name")
    commands.add_parser("serve", help=argparse.SUPPRESS).add_argument("folder", type=Path)
    given = parser.parse_args()
    try:
        match given.command:
            case "prepare":
                prepare(_say)
                return 0
            case "up":
                return _up()
            case "down":
                return _down()
            case "load":
                return _load(given.image)
            case "serve":
                return _serve(given.folder)
            case _:
                return _status()
    except FAULTS as fault:
        _say(f"scripts/cluster: {fault}")
        return 1


def _up() -> int:
    theirs = os.environ.get("KUBECONFIG")
    if theirs:
        _say("KUBECONFIG is set: that cluster is used, and no node is started")
        print(theirs)
        return 0
    kept = running()
    if kept is not None:
        print(plan.Place(kept).kubeconfig)
        return 0
    folder = Path(tempfile.mkdtemp(prefix="moorage-node-"))
    command = [sys.executable, "-m", "cluster.node.door", "serve", str(folder)]
    _log().parent.mkdir(parents=True, exist_ok=True)
    with _log().open("wb") as log:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    _current().write_text(f"{server.pid} {folder}")
    _say(f"starting a node in {folder}; the first time its components are built, which takes some minutes")
    deadline = time.monotonic() + UP_SECONDS
    while not (folder / "ready").exists():
        if server.poll() is not None or time.monotonic() > deadline:
            _say(f"the node did not start:\n{_log().read_text(errors='replace')}")
            return 1
        time.sleep(STEP)
    print(plan.Place(folder).kubeconfig)
    return 0


def _serve(folder: Path) -> int:
    """Keeps the node until it is told to end."""
    with Node.started(folder) as node:
        (folder / "ready").write_text("")
        while signal.sigtimedwait({signal.SIGTERM, signal.SIGINT}, 1.0) is None:
            node.check()
    return 0


def _down() -> int:
    if not _current().exists():
        _say("no node runs")
        return 0
    word, _, folder = _current().read_text().partition(" ")
    pid = int(word)
    if _is_ours(pid):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + DOWN_SECONDS
        while _is_ours(pid) and time.monotonic() < deadline:
            time.sleep(STEP)
        if _is_ours(pid):
            _say(f"process {pid} does not end; look at {folder}")
            return 1
    else:
        Node(Path(folder)).down()  # its keeper was killed: what it left is swept here
    _current().unlink()
    return 0


def _status() -> int:
    folder = running()
    if folder is None:
        _say("no node runs")
        return 3
    print(plan.Place(folder).kubeconfig)
    return 0


def _load(image: str) -> int:
    folder = running()
    if folder is None:
        _say("no node runs: scripts/cluster up")
        return 3
    with exported(image) as archive:
        Node(folder).load(archive)
    return 0


def running() -> Path | None:
    if not _current().exists():
        return None
    word, _, folder = _current().read_text().partition(" ")
    return Path(folder) if _is_ours(int(word)) else None


def _is_ours(pid: int) -> bool:
    """Whether that process is a keeper of ours, and not another one that got its number."""
    try:
        return b"cluster.node.door" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _current() -> Path:
    return plan.cache() / CURRENT


def _log() -> Path:
    """What the keeper of the last node said; outside the node's folder, which goes with it."""
    return plan.cache() / "serve.log"


def _say(text: str) -> None:
    sys.stderr.write(text.rstrip() + "\n")


if __name__ == "__main__":
    # Before anything is started: whoever ends this process in between must still get it to sweep.
    if sys.argv[1:2] == ["serve"]:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    sys.exit(main())
