"""`python -m moorage_sandbox.fetching`: a pod's code, before its agent starts. Layer: roof; runs in an init container of the stock image.

Fetches the built bundle of the sandbox's agent through the gateway, unpacks it by digest, and makes the interpreter's links; and how the
package index is reached, for an agent that may. The folder is the agent's container's own afterwards, read-only.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from moorage_api import built, bundles
from moorage_api.bundles import BundleError
from moorage_sandbox.config import ShimConfig
from moorage_sandbox.platform import Platform, Refused, Unreachable
from moorage_sandbox.proof import Proof


class Unfit(Exception):
    """The bundle is not one for this image."""


def main() -> int:
    """Entry; the exit status. What went wrong stands on stderr in one sentence."""
    parser = argparse.ArgumentParser(prog="moorage_sandbox.fetching", description="Fetches the code of a sandbox.")
    parser.add_argument("--config", type=Path, required=True, help="the shim's ShimConfig")
    parser.add_argument("--digest", help="of the built bundle, 64 hex digits; default: no code is fetched")
    parser.add_argument("--index", action="store_true", help="also how the platform's package index is reached")
    parser.add_argument("--to", type=Path, required=True, help="the folder that will hold code and environment")
    parser.add_argument("--within", type=float, required=True, help="seconds")
    given = parser.parse_args()
    config = ShimConfig.from_json(given.config.read_bytes())
    platform = Platform(
        config.gateways[0], Proof(config.token, config.token_file), until=time.monotonic() + given.within
    )
    try:
        if given.digest is not None:
            fetch(platform, given.digest, given.to, Path(sys.executable).resolve(), sys.version_info[:2])
        if given.index:
            fetch_index(platform, given.to)
    except (Unreachable, Refused, BundleError, Unfit, OSError) as fault:
        sys.stderr.write(f"moorage: the code cannot be had: {fault}\n")
        return 1
    return 0


def fetch(platform: Platform, digest: str, folder: Path, python: Path, version: tuple[int, int]) -> None:
    """Fills `folder` with code and environment. Raises Unreachable, Refused, BundleError, Unfit, OSError."""
    with tempfile.TemporaryDirectory(prefix=".fetched-", dir=folder) as aside:
        archive = Path(aside) / "built.tar.gz"
        platform.built(digest, archive)
        with archive.open("rb") as file:
            bundles.unpack(file, Path(aside) / "tree", digest=digest, limits=built.LIMITS)
        tree = Path(aside) / "tree"
        environment = tree / built.ENVIRONMENT
        if not (environment / "lib" / "python{}.{}".format(*version)).is_dir():
            raise Unfit(
                f"it was built for another Python than this image's {version[0]}.{version[1]}; apply the agent again"
            )
        binaries = environment / "bin"
        binaries.mkdir(exist_ok=True)
        for name in ("python", "python3"):
            (binaries / name).unlink(missing_ok=True)
            (binaries / name).symlink_to(python)
        for part in (built.CODE, built.ENVIRONMENT):
            (tree / part).rename(folder / part)


def fetch_index(platform: Platform, folder: Path) -> None:
    """Fills `folder`/index. A platform without an index leaves it without variables, as on one machine. Raises Unreachable, OSError."""
    place = folder / built.INDEX
    place.mkdir(exist_ok=True)  # an init container may run again, in the same volume
    variables: dict[str, str] = {}
    try:
        found = platform.index()
    except Refused as why:
        sys.stderr.write(f"moorage: package-index: {why}\n")
    else:
        variables = {str(name): str(text) for name, text in dict(found.get("env") or {}).items()}
        if isinstance(found.get("ca"), str):
            (place / built.INDEX_CA).write_text(found["ca"], "utf-8")
            variables |= dict.fromkeys(built.CA_VARIABLES, f"{built.INDEX_AT}/{built.INDEX_CA}")
    (place / built.INDEX_VARIABLES).write_text(json.dumps(variables), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
