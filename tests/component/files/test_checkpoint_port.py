"""The checkpoint calls of the sandbox port: a sandbox reaches its own session's, while it holds it, and nobody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from component.files.conftest import Port, identity
from moorage_api.ledger.records import Descriptor
from moorage_api.wire import checkpoints as wire
from moorage_gateway.checkpoints import Checkpoints

pytestmark = [pytest.mark.component, pytest.mark.tenancy]


async def test_what_a_sandbox_stored_it_gets_back(port: Port) -> None:
    key = await port.session("sb-1", identity("acme", "ann"))
    made = await port.offer(key, "sb-1", "acme", before="caresp_1")
    assert made.status_code == 200, made.text
    one = made.json()
    for name in (one["id"] if "id" in one else wire.Checkpoint.model_validate(one).id, "before:caresp_1"):
        assert (await port.call("GET", f"/{name}", "sb-1", "acme")).json() == one
    pack = await port.call("GET", f"/packs/{one['packs'][0]['name']}", "sb-1", "acme")
    assert pack.content == b"pack"
    assert (await port.call("GET", "/before:caresp_2", "sb-1", "acme")).status_code == 404


async def test_another_tenants_sandbox_finds_nothing_of_it(port: Port) -> None:
    key = await port.session("sb-1", identity("acme", "ann"))
    one = (await port.offer(key, "sb-1", "acme")).json()
    await port.session("sb-2", identity("rival", "ann"))
    name = wire.Checkpoint.model_validate(one).id
    for path in (f"/{name}", f"/packs/{one['packs'][0]['name']}", f"/manifests/{one['manifest']['name']}"):
        assert (await port.call("GET", path, "sb-2", "rival")).status_code == 404, path
    assert (await port.offer(key, "sb-2", "rival")).status_code == 403
    lied = await port.call("GET", f"/{name}", "sb-1", "rival")  # a token of ours, but the session is another tenant's
    assert lied.status_code == 403


@pytest.mark.parametrize("end", ["unclaimed", "hibernated", "deleted", "elsewhere"])
async def test_a_sandbox_that_holds_no_session_stores_and_reads_nothing(port: Port, end: str) -> None:
    key = await port.session("sb-1", identity("acme", "ann"))
    await port.offer(key, "sb-1", "acme")
    sandbox, epoch = "sb-1", port.epochs[key]
    match end:
        case "unclaimed":
            sandbox = "sb-9"
            await port.provider.offer(Descriptor("sb-9", "acme", "a", "r1", "unix:/none", "s", "v"))
        case "hibernated":
            await port.sessions.drain(key, epoch, idle_before=0)
            assert (await port.offer(key, "sb-1", "acme")).status_code == 200  # draining: it is asked for its last one
            await port.sessions.hibernated(key, epoch, "idle")
        case "deleted":
            await port.sessions.delete_session(key)
        case "elsewhere":
            await port.provider.gone("sb-1", "dead")
            await port.sessions.claim(key, "r1", named=False)
    for method, path in (("GET", "/before:x"), ("PUT", f"/packs/{wire.digest(b'x')}"), ("POST", "")):
        answer = await port.call(method, path, sandbox, "acme", content=b"x" if method != "GET" else None)
        assert answer.status_code == 403, (method, answer.text)


@pytest.mark.parametrize(
    ("other", "status"),
    [
        ({"epoch": 3}, 403),
        ({"session": "acme:ffffffffffffffff"}, 403),
        ({"packs": [{"name": "0" * 64, "size": 4}]}, 409),
        ({"number": 0}, 400),
        ({"why": "fun"}, 400),
        ({"packs": "none"}, 400),
        ({"manifest": {"name": "../../x", "size": 1}}, 400),
        ({"more": 1}, 400),
    ],
)
async def test_an_offer_that_is_wrong_makes_no_checkpoint(port: Port, other: dict[str, Any], status: int) -> None:
    key = await port.session("sb-1", identity("acme", "ann"))
    assert (await port.offer(key, "sb-1", "acme", **other)).status_code == status
    assert (await port.call("GET", "/before:", "sb-1", "acme")).status_code == 404


async def test_a_checkpoint_of_a_session_that_is_deleted_meanwhile_is_none(port: Port, tmp_path: Path) -> None:
    key = await port.session("sb-1", identity("acme", "ann"))
    commit = Checkpoints.commit

    async def late(self: Checkpoints, *about: Any) -> wire.Checkpoint:
        await port.sessions.delete_session(key)  # it was still there when the sandbox was asked who it is
        return await commit(self, *about)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "commit", late)
        assert (await port.offer(key, "sb-1", "acme")).status_code == 403
    assert not list((tmp_path / "store").glob("t/acme/checkpoints/*"))


async def test_bodies_are_bounded_and_held_to_their_names(port: Port) -> None:
    await port.session("sb-1", identity("acme", "ann"))
    large = await port.call("PUT", f"/packs/{'0' * 64}", "sb-1", "acme", content=bytes(wire.MAX_PACK + 1))
    assert large.status_code == 413
    wrong = await port.call("PUT", f"/packs/{'0' * 64}", "sb-1", "acme", content=b"other bytes")
    assert wrong.status_code == 422
    for path in ("/packs/..%2f..%2fx", "/pointers/x", "/packs/short"):
        assert (await port.call("GET", path, "sb-1", "acme")).status_code == 404, path
