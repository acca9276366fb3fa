"""Images for the node: built by buildah from this project's Dockerfiles, without a registry. Layer: I/O rim.

base(…)       Debian with Python, made by debootstrap, once: kept in the cache
build(…)      a Dockerfile of this project on that base, as an archive in the cache, named by what went into it
exported(…)   an archive of an image that buildah holds
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cluster.node import inputs, plan

BASE = "localhost/moorage-base:1"
SUITE = "bookworm"
CAP_SYS_ADMIN = 21  # linux/capability.h
INCLUDE = "python3,python3-venv,ca-certificates"


class ImageFailed(Exception):
    """An image could not be made; the message holds what the builder said last."""


def base() -> Path:
    """The archive of the base image. Raises ImageFailed."""
    archive = plan.cache() / f"base-{SUITE}-1.oci.tar"
    if archive.exists():
        if not _held(BASE):
            _run(["buildah", *_store(), "pull", "--quiet", f"oci-archive:{archive}"])
        return archive
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="moorage-base-") as scratch:
        root = Path(scratch) / "root"
        _run(["debootstrap", "--variant=minbase", f"--include={INCLUDE}", SUITE, str(root)])
        for leftover in (root / "var/cache/apt/archives").glob("*.deb"):
            leftover.unlink()
        (Path(scratch) / "Dockerfile").write_text("FROM scratch\nCOPY root /\n")
        _run(["buildah", *_store(), "bud", "--isolation", "chroot", "-t", BASE, scratch])
    _push(BASE, archive)
    return archive


def build(name: str, dockerfile: Path, context: Path, base_image: str, target: Path) -> None:
    """Makes `dockerfile` the image `name` on a base, and its archive `target`; what is there of the same inputs stays. Raises ImageFailed.

    The certificates that this machine trusts are lent to the build, for a network that needs its own; they stay out of the image.
    """
    arguments = {"BASE": base_image, **({"PIP_CERT": os.environ["PIP_CERT"]} if os.environ.get("PIP_CERT") else {})}
    of = _note(base_image)
    made = inputs.key(dockerfile, context, arguments | {"BASE": of.read_text() if of.exists() else base_image})
    note, beside = _note(name), target.with_suffix(".key")
    if target.exists() and _held(name) and all(one.exists() and one.read_text() == made for one in (note, beside)):
        return
    given = [part for key, value in arguments.items() for part in ("--build-arg", f"{key}={value}")]
    lent = ["--volume", "/etc/ssl/certs:/etc/ssl/certs:ro"] if Path("/etc/ssl/certs").is_dir() else []
    options = ["--isolation", "chroot", *lent, *given, "-t", name, "-f", str(dockerfile)]
    for one in (note, beside):
        one.unlink(missing_ok=True)
    _run(["buildah", *_store(), "bud", *options, str(context)])
    _push(name, target)
    for one in (note, beside):
        one.write_text(made)


@contextmanager
def exported(image: str) -> Iterator[Path]:
    """`image` as an archive: itself when it is one, else a passing copy of the image of that name."""
    if Path(image).is_file():
        yield Path(image)
        return
    with tempfile.TemporaryDirectory(prefix="moorage-image-") as scratch:
        archive = Path(scratch) / "image.tar"
        _push(image, archive)
        yield archive


def _push(name: str, archive: Path) -> None:
    fresh = archive.with_suffix(f".{os.getpid()}")
    _run(["buildah", *_store(), "push", name, f"oci-archive:{fresh}:{name}"])
    os.replace(fresh, archive)


def _note(name: str) -> Path:
    """What an image that buildah holds was built from."""
    folder = plan.cache() / "made"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name.replace("/", "_").replace(":", "_")


def _held(name: str) -> bool:
    command = ["buildah", *_store(), "inspect", "--type", "image", name]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _store() -> list[str]:
    """buildah's images, kept with our cache. `vfs` needs no right to mount, and copies the whole image for each step."""
    driver = "overlay" if _may_mount() else "vfs"
    folder = plan.cache() / f"buildah-{driver}"
    return ["--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver", driver]


def _may_mount() -> bool:
    held = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    return bool(int(held.split()[1], 16) >> CAP_SYS_ADMIN & 1) and "overlay" in Path("/proc/filesystems").read_text()


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise ImageFailed(f"{command[0]} failed with status {done.returncode}:\n{said}")
