"""Deploying through the API as any client may: an archive's bytes, its upload, the manifest, the wait until it serves."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

from fakes.http_door import Answer, HttpDoor
from fakes.platform import poll
from moorage_api import bundles

API = "moorage.dev/v1alpha1"


def packed(folder: Path) -> bytes:
    """The bundle of a folder."""
    out = io.BytesIO()
    bundles.pack(folder, out)
    return out.getvalue()


def upload(door: HttpDoor, agent: str, data: bytes, *, digest: str | None = None) -> Answer:
    """Uploads an archive; the answer that decided."""
    digest = digest or hashlib.sha256(data).hexdigest()
    begun = door.ask("POST", f"/v1/agents/{agent}/bundles", {"digest": digest, "size": len(data)})
    if begun.status != 201 or begun.body["complete"]:
        return begun
    return door.ask(
        "PATCH",
        f"/v1/bundles/uploads/{begun.body['id']}",
        raw=data,
        headers={"upload-offset": str(begun.body["offset"]), "content-type": "application/octet-stream"},
    )


def manifest(name: str, data: bytes, **spec: Any) -> dict[str, Any]:
    """A manifest whose source is that bundle."""
    source = {"bundle": f"sha256:{hashlib.sha256(data).hexdigest()}", **spec.pop("source", {})}
    return {
        "apiVersion": API,
        "kind": "HostedAgent",
        "metadata": {"name": name},
        "spec": {"source": source, "pool": {"min": 1, "max": 2}, **spec},
    }


def deploy(door: HttpDoor, name: str, folder: Path, *, within: float = 60.0, **spec: Any) -> dict[str, Any]:
    """Deploys a folder and waits until it is ready; the agent object."""
    data = packed(folder)
    done = upload(door, name, data)
    assert done.status in (200, 201), done.raw
    made = door.ask("PUT", f"/v1/agents/{name}", manifest(name, data, **spec))
    assert made.status == 200, made.raw
    return ready(door, name, made.body["revision"], within=within)


def ready(door: HttpDoor, name: str, revision: str, *, within: float = 60.0) -> dict[str, Any]:
    """The agent once that revision is ready."""

    def look() -> dict[str, Any] | None:
        found = door.ask("GET", f"/v1/agents/{name}").body or {}
        good = any(each["revision"] == revision and each["ready"] for each in found.get("revisions") or [])
        return dict(found) if good else None

    return dict(poll(f"{name} is ready", look, within=within))


def refused(door: HttpDoor, name: str, folder: Path, *, within: float = 30.0, **spec: Any) -> tuple[str, str]:
    """Deploys a folder that cannot serve; (reason, message) of the condition that says why."""
    data = packed(folder)
    upload(door, name, data)
    made = door.ask("PUT", f"/v1/agents/{name}", manifest(name, data, **spec))
    assert made.status == 200, made.raw
    return broken(door, name, within=within)


def broken(door: HttpDoor, name: str, *, within: float = 30.0) -> tuple[str, str]:
    """(reason, message) of a condition that is False, once there is one."""

    def look() -> tuple[str, str] | None:
        found = (door.ask("GET", f"/v1/agents/{name}").body or {}).get("conditions") or []
        wrong = [one for one in found if one["status"] == "False" and one["type"] != "Ready"]
        return (str(wrong[0]["reason"]), str(wrong[0]["message"])) if wrong else None

    reason, message = poll(f"{name} says what is wrong", look, within=within)
    return reason, message
