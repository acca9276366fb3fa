"""Builds the platform's images with whatever builds images here: buildah, docker or podman. Called by `scripts/images`.

build                    as IMAGE:VERSION in the builder's own store
  --push REGISTRY        also pushed to REGISTRY/IMAGE:VERSION
  --kind NAME            also loaded into that kind cluster
  --load                 also loaded into the node of `scripts/cluster up`, on a base made here: no image is pulled
  --archive FOLDER       instead written as FOLDER/IMAGE-VERSION.tar, on a base made here: no image is pulled, no node needed
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from cluster.node import door, images
from cluster.node.node import Node

ROOT = Path(__file__).resolve().parent.parent
IMAGES = {
    "sandbox": ("moorage-sandbox", ROOT / "sandbox-image" / "Dockerfile"),
    "gateway": ("moorage-gateway", ROOT / "gateway" / "Dockerfile"),
    "operator": ("moorage-operator", ROOT / "operator" / "Dockerfile"),
    "valkey": ("moorage-valkey", ROOT / "valkey-image" / "Dockerfile"),
}
"""What can be built: its short name, the image's name and its Dockerfile. The build context is the repository."""
TEST_AGENT, AGENT = "test-agent", ROOT / "tests" / "cluster" / "agent"
"""Not built unless named: what the cluster tests apply on a cluster of somebody else's, on the sandbox's image of the same place."""
BUILDERS = ("buildah", "docker", "podman")


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="scripts/images", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("command", choices=["build"])
    parser.add_argument(
        "names",
        nargs="*",
        default=list(IMAGES),
        metavar="NAME",
        help=f"of {', '.join(IMAGES)}; default: all. {TEST_AGENT}: for tests",
    )
    parser.add_argument("--base", help="the base image, in place of the Dockerfile's")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--push", metavar="REGISTRY")
    where.add_argument("--kind", metavar="NAME")
    where.add_argument("--load", action="store_true")
    where.add_argument("--archive", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in (*IMAGES, TEST_AGENT)]
    if unknown:
        parser.error(f"no image is named {unknown[0]!r}; there are {', '.join(IMAGES)}")
    try:
        for name in given.names:
            _build(name, given)
    except (images.ImageFailed, subprocess.CalledProcessError) as fault:
        sys.stderr.write(f"scripts/images: {fault}\n")
        return 1
    return 0


def _build(name: str, given: argparse.Namespace) -> None:
    image, dockerfile = IMAGES.get(name, (f"moorage-{TEST_AGENT}", AGENT / "Dockerfile"))
    context, base, tag = ROOT, given.base, f"{image}:{version('moorage')}"
    if name == TEST_AGENT:
        context, base = AGENT, given.base or f"localhost/moorage-sandbox:{version('moorage')}"
    if given.load or given.archive:
        _own_base(f"localhost/{tag}", dockerfile, context, base, given)
        return
    builder = next((each for each in BUILDERS if shutil.which(each)), None)
    if builder is None:
        raise images.ImageFailed(f"none of {', '.join(BUILDERS)} is installed")
    arguments = ["--build-arg", f"BASE={base}"] if base else []
    _run(
        builder, "bud" if builder == "buildah" else "build", *arguments, "-t", tag, "-f", str(dockerfile), str(context)
    )
    if given.push:
        target = f"{given.push.rstrip('/')}/{tag}"
        _run(builder, "tag", tag, target)
        _run(builder, "push", target)
    elif given.kind:
        with tempfile.TemporaryDirectory() as scratch:
            archive = f"{scratch}/image.tar"
            to_file = (
                ["push", tag, f"docker-archive:{archive}:{tag}"]
                if builder == "buildah"
                else ["save", "-o", archive, tag]
            )
            _run(builder, *to_file)
            _run("kind", "load", "image-archive", archive, "--name", given.kind)
    sys.stdout.write(f"{tag}\n")


def _own_base(tag: str, dockerfile: Path, context: Path, base: str | None, given: argparse.Namespace) -> None:
    """Without a registry: buildah on our base, then into the node or the folder."""
    folder = door.running()
    if given.load and folder is None:
        raise images.ImageFailed("no node runs: scripts/cluster up")
    if base is None:
        images.base()
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "image.tar"
        if given.archive:
            given.archive.mkdir(parents=True, exist_ok=True)
            target = given.archive / f"{tag.rpartition('/')[2].replace(':', '-')}.tar"
        images.build(tag, dockerfile, context, base or images.BASE, target)
        if given.load and folder is not None:
            Node(folder).load(target)
    sys.stdout.write(f"{target if given.archive else tag}\n")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, env={**os.environ, "BUILDAH_FORMAT": "docker"})


if __name__ == "__main__":
    sys.exit(main())
