"""The steps of a build, in order. Layer: the builder's top; what may go wrong with a source is an outcome, everything else is raised."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from moorage_api import built, bundles, conditions, source_tree, uv_commands
from moorage_api.built import Built, Failed, Outcome
from moorage_api.bundles import BundleError
from moorage_api.source_tree import SourceError
from moorage_sandbox.building import environment
from moorage_sandbox.building.config import BuildConfig
from moorage_sandbox.building.git import LOST
from moorage_sandbox.building.outlet import Outlet
from moorage_sandbox.building.tools import ToolFailed, Tools
from moorage_sandbox.platform import Platform, Refused
from moorage_sandbox.proof import Proof


def build(config: BuildConfig, work: Path, variables: Mapping[str, str], *, until: float) -> Outcome:
    """Builds in `work`, an empty folder, and stores the result. Raises Unreachable, OSError: then it may be tried again."""
    proof = Proof(config.token, config.token_file)
    platform = Platform(config.gateway, proof, until=until)
    with Outlet(config.egress, proof) as outlet:
        try:
            tools = Tools(_variables(platform.index(), work, variables, outlet.variables), until)
        except Refused as why:
            return Failed(conditions.ENVIRONMENT_FAILED, str(why))
        code, env = work / "out" / built.CODE, work / "out" / built.ENVIRONMENT
        code.parent.mkdir()
        try:
            commit = _source(config, platform, tools, work, code)
            entry = source_tree.entrypoint(code, config.source.entrypoint)
            contract = source_tree.contract(code, entry, config.contract)
            if built.heard(built.told(Built("0" * 64, entry, contract, commit))) is None:
                raise SourceError("spec.source.entrypoint: its name is too long or holds control characters; rename it")
        except (SourceError, BundleError, ToolFailed, Refused) as why:
            return Failed(conditions.SOURCE_REFUSED, str(why))
        try:
            environment.make(tools, config.source, code, env, aside=work)
            environment.settle(tools, code, env)
            digest = _kept(platform, work)
        except (SourceError, BundleError, ToolFailed, Refused) as why:
            return Failed(conditions.ENVIRONMENT_FAILED, str(why))
    return Built(digest, entry, contract, commit)


def _variables(
    index: Mapping[str, object], work: Path, variables: Mapping[str, str], proxies: Mapping[str, str]
) -> dict[str, str]:
    """What the tools see: the platform's index, the way out, and folders of this build's own."""
    given = index.get("env")
    found = {str(name): str(text) for name, text in given.items()} if isinstance(given, dict) else {}
    found = {name: text for name, text in found.items() if name.startswith(("UV_", "PIP_"))}
    if isinstance(index.get("ca"), str):
        authorities = work / "ca.pem"
        authorities.write_text(str(index["ca"]), "utf-8")
        found |= dict.fromkeys(("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE"), str(authorities))
    for name in ("home", "tmp"):
        (work / name).mkdir()
    own = {"HOME": str(work / "home"), "TMPDIR": str(work / "tmp"), "UV_CACHE_DIR": str(work / "cache")}
    kept = {name: text for name, text in uv_commands.kept(variables).items() if name in ("PATH", "LANG", "LC_ALL")}
    return {**kept, **found, **proxies, **own, **uv_commands.FIXED}


def _source(config: BuildConfig, platform: Platform, tools: Tools, work: Path, code: Path) -> str:
    """Puts the source's files at `code`; the commit, "" for a bundle."""
    git = config.source.git
    if git is None:
        archive = work / "source.tar.gz"
        platform.source(archive)
        with archive.open("rb") as packed:
            bundles.unpack(packed, code, digest=config.source.bundle)
        return ""
    raw = work / "raw"
    raw.mkdir()
    command = [sys.executable, "-m", "moorage_sandbox.building.git"]
    what = f"spec.source.git: {config.commit or git.ref} of {git.url}"
    said = tools.run(
        [*command, git.url, config.commit or git.ref, git.path, str(raw)], cwd=work, what=what, lost=(LOST,)
    )
    for file in bundles.files_of(raw):  # as on one machine: what is ignored there is ignored here
        place = code / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.path, place)
        place.chmod(0o755 if file.executable else 0o644)
    return said.split()[-1]


def _kept(platform: Platform, work: Path) -> str:
    """Packs, stores, and names what was stored. It is unpacked once here: what a pod would refuse is refused now."""
    archive = work / "built.tar.gz"
    with archive.open("wb") as file:
        packed = bundles.pack(work / "out", file, limits=built.LIMITS, everything=True)
    if packed.size > built.PACKED:
        raise BundleError(f"code and environment are more than {built.PACKED} bytes packed")
    with archive.open("rb") as file:
        bundles.unpack(file, work / "tried", digest=packed.digest, limits=built.LIMITS)
    sys.stdout.write(f"{packed.files} files, {packed.size} bytes, sha256:{packed.digest}\n")
    platform.keep(packed.digest, archive)
    return packed.digest
