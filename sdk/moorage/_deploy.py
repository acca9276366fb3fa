"""Deploying a folder: read its manifests, pack, upload what is missing, apply, wait. Layer: SDK client, under `_client`."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from moorage import _errors
from moorage._transport import Http
from moorage_api import conditions

MANIFEST = "agent.yaml"
PIECE = 1024 * 1024  # bytes a request of the upload; what a broken connection costs at most
TRIES = 5  # broken connections in a row that an upload survives
IN_MEMORY = 8 * 1024 * 1024
POLL = 0.3  # seconds between two looks at an agent that is not ready yet
SETTLED = 5.0  # seconds after which a reason that waiting cannot cure is believed
_NEEDS_A_PERSON = frozenset(
    {
        conditions.SOURCE_MISSING,
        conditions.SOURCE_REFUSED,
        conditions.ENVIRONMENT_FAILED,
        conditions.IMAGE_UNSUPPORTED,
        conditions.AGENT_BROKEN,
    }
)


@dataclass(frozen=True)
class Stage:
    """How far a deployment is: `step` is `pack`, `upload`, `apply`, `wait` or `ready`; done and total are bytes of an upload."""

    agent: str
    step: str
    done: int = 0
    total: int = 0
    conditions: tuple[dict[str, Any], ...] = ()
    note: str = ""


Progress = Callable[[Stage], None]


@dataclass(frozen=True)
class Manifest:
    """One checked document of a manifest file; `folder` is what `source.path` names, None when there is nothing to pack."""

    name: str
    document: dict[str, Any]
    folder: Path | None
    warnings: tuple[str, ...]


def read(folder: Path) -> list[Manifest]:
    """The manifests of a folder (or of a manifest file). Raises Misuse naming file and field."""
    path = folder / MANIFEST if folder.is_dir() else folder
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as missing:
        raise _errors.Misuse(f"There is no {path}.", hint="Give a folder with an agent.yaml.") from missing
    except (OSError, ValueError) as wrong:
        raise _errors.Misuse(f"{path} cannot be read: {wrong}.") from wrong
    read = [_manifest(document, path) for document in _documents(text, path)]
    found = [one for one in read if isinstance(one, Manifest)]
    if not found:
        what = "no manifest of an agent" if read else "no manifest"
        raise _errors.Misuse(f"{path} holds {what}.")
    left = tuple(
        f"{name} stands in {path.name}, too, and is not applied: whoever runs the platform does that (kubectl apply, or "
        "the folder of `moorage dev`), since it names a key"
        for name in read
        if isinstance(name, str)
    )
    return [replace(found[0], warnings=(*found[0].warnings, *left)), *found[1:]]


def _documents(text: str, path: Path) -> list[Any]:
    try:
        import yaml
    except ImportError as missing:
        raise _errors.Misuse(
            "Reading a manifest needs PyYAML.", hint="Install it with: pip install 'moorage[cli]'"
        ) from missing
    try:
        return [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as wrong:
        raise _errors.Misuse(f"{path} is not YAML: {' '.join(str(wrong).split())}.") from wrong


_CALLED = {"ModelEndpoint": "model endpoint", "Toolbox": "toolbox", "Routine": "routine"}


def _manifest(document: Any, path: Path) -> Manifest | str:
    """An agent's, or what else it is."""
    from moorage_api.kinds import HostedAgent, documents

    try:
        agent = documents.parse_any(document)
    except documents.ManifestError as wrong:
        raise _errors.Misuse(str(wrong.at(str(path)))) from wrong
    if not isinstance(agent, HostedAgent):
        return f"{_CALLED[agent.kind]} {agent.name}"
    source = agent.spec.source
    folder = None
    if source is not None and source.path is not None:
        folder = (path.parent / source.path).resolve()
        if not folder.is_dir():
            raise _errors.Misuse(f"{path}: spec.source.path: {folder} is not a folder.")
    if agent.spec.mounts:
        raise _errors.Misuse(f"{path}: spec.mounts: host folders exist with `moorage dev` only; remove them for `up`.")
    return Manifest(agent.name, document, folder, tuple(documents.warnings_of(agent)))


async def deploy(http: Http, manifest: Manifest, progress: Progress, *, timeout: float) -> dict[str, Any]:
    """Deploys one agent and waits until it is ready. Raises NotReady after `timeout` seconds, with its conditions."""
    name = manifest.name
    for warning in manifest.warnings:
        progress(Stage(name, "pack", note=warning))
    document = manifest.document
    if manifest.folder is not None:
        progress(Stage(name, "pack"))
        with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY) as bundle:
            digest, size = await asyncio.to_thread(_pack, manifest.folder, bundle)
            await upload(http, name, digest, size, bundle, progress)
        source = {k: v for k, v in document["spec"]["source"].items() if k != "path"} | {"bundle": f"sha256:{digest}"}
        document = {**document, "spec": {**document["spec"], "source": source}}
    progress(Stage(name, "apply"))
    applied = await http.json("PUT", f"/v1/agents/{name}", body=document)
    newest = Newest(str(applied.get("revision") or ""), int(applied.get("generation") or 0))
    return await ready(http, name, newest, progress, timeout=timeout)


def _pack(folder: Path, target: IO[bytes]) -> tuple[str, int]:
    from moorage_api import bundles

    try:
        packed = bundles.pack(folder, target)
    except bundles.BundleError as wrong:
        raise _errors.Misuse(f"{wrong}.") from wrong
    return packed.digest, packed.size


async def upload(http: Http, agent: str, digest: str, size: int, bundle: IO[bytes], progress: Progress) -> None:
    """Sends what the platform does not have yet, from where it stopped; survives broken connections in between."""
    begun = await _begun(http, agent, digest, size)
    offset = int(begun["offset"])
    path = f"/v1/bundles/uploads/{begun['id']}"
    tries = 0
    while not begun.get("complete") and offset < size:
        progress(Stage(agent, "upload", offset, size))
        bundle.seek(offset)
        piece = bundle.read(PIECE)
        try:
            offset = await http.upload(path, offset, piece)
            tries = 0
        except (_errors.ConnectionLost, _errors.ApiStatusError) as broken:
            tries += 1
            if tries >= TRIES or (isinstance(broken, _errors.ApiStatusError) and broken.status not in (409, 429, 503)):
                raise
            await asyncio.sleep(getattr(broken, "retry_after", None) or 0.2 * 2**tries)
            begun = await _begun(http, agent, digest, size)  # says how much arrived, also when the last piece did
            offset = int(begun["offset"])
    progress(Stage(agent, "upload", size, size))


async def _begun(http: Http, agent: str, digest: str, size: int) -> dict[str, Any]:
    found: dict[str, Any] = await http.json(
        "POST", f"/v1/agents/{agent}/bundles", body={"digest": f"sha256:{digest}", "size": size}
    )
    return found


@dataclass(frozen=True)
class Newest:
    """What is waited for: a revision by its name, or, where its source is still to be built, a generation of the spec (0: any)."""

    revision: str = ""
    generation: int = 0


async def ready(http: Http, name: str, newest: Newest, progress: Progress, *, timeout: float) -> dict[str, Any]:
    """The agent once `newest` is ready; polls, and tells every change of its conditions.

    Raises NotReady after `timeout` seconds, or earlier once a reason that needs a person has stood for a while.
    """
    end = time.monotonic() + timeout
    told: tuple[dict[str, Any], ...] | None = None
    broken_since: float | None = None
    while True:
        agent = await _look(http, name)
        held = tuple(agent.get("conditions") or ())
        if held != told:
            progress(Stage(name, "wait", conditions=held))
            told = held
        if _is_ready(agent, newest):
            progress(Stage(name, "ready", conditions=held))
            return agent
        now = time.monotonic()
        broken_since = (broken_since or now) if _is_broken(held, newest.generation) else None
        if now > end or (broken_since is not None and now - broken_since > SETTLED):
            raise _not_ready(name, agent, held)
        await asyncio.sleep(POLL)


async def _look(http: Http, name: str) -> dict[str, Any]:
    """The agent; empty while the platform does not list it yet."""
    try:
        found: dict[str, Any] = await http.json("GET", f"/v1/agents/{name}")
    except _errors.ApiStatusError as refused:
        if refused.status == 404 or refused.status >= 500:
            return {}
        raise
    return found


def _is_ready(agent: dict[str, Any], newest: Newest) -> bool:
    if newest.revision:
        return any(
            each.get("revision") == newest.revision and each.get("ready") for each in agent.get("revisions") or []
        )
    if not newest.generation:
        return bool(agent.get("ready"))
    held = agent.get("conditions") or []
    return any(_is_of(c, newest.generation) and c.get("status") == "True" for c in held)


def _is_broken(held: tuple[dict[str, Any], ...], generation: int) -> bool:
    return any(_is_of(c, generation) and c.get("reason") in _NEEDS_A_PERSON for c in held)


def _is_of(condition: dict[str, Any], generation: int) -> bool:
    """Whether it is the condition Ready, and of a spec at least that new."""
    return condition.get("type") == conditions.READY and int(condition.get("observedGeneration") or 0) >= generation


def _not_ready(name: str, agent: dict[str, Any], held: tuple[dict[str, Any], ...]) -> _errors.NotReady:
    why = str(agent.get("message") or "the platform gives no reason yet").rstrip(".")
    hint = f"See what it writes: moorage logs {name}"
    return _errors.NotReady(f"{name} is not ready: {why}.", conditions=list(held), hint=hint)
