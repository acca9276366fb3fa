"""The gateway's door to sessions and routes: one method a script of `session_scripts`, `move_scripts` or `loss_scripts`, typed."""

from __future__ import annotations

from dataclasses import dataclass

from moorage_api.ledger import keys, loss_scripts, move_scripts, session_scripts
from moorage_api.ledger.records import Claim, Descriptor, SessionIdentity, SessionRecord, text
from moorage_api.ledger.script import Runner


@dataclass(frozen=True)
class Announced:
    """`word`: OK, RESTORED or STOP; `epoch`: the one the shim must compare with its own."""

    word: str
    epoch: int


class SessionLedger:
    """Sessions in Redis. Every method may raise `Lost` or `Unreachable`."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def session(self, key: str) -> SessionRecord | None:
        """The session as Redis holds it."""
        return SessionRecord.parse(key, await self._runner.read("HGETALL", keys.session(key)))

    async def waiting(self, key: str) -> list[str]:
        """The turns that wait behind the running one, in order."""
        return [text(x) for x in await self._runner.read("LRANGE", keys.queue(key), 0, -1)]

    async def sandbox(self, sandbox: str) -> Descriptor | None:
        """A sandbox's descriptor."""
        return Descriptor.parse(await self._runner.read("HGETALL", keys.sandbox(sandbox)))

    async def page(self, tenant: str, *, newest: int, offset: int = 0) -> list[str]:
        """Session keys of a tenant, newest first."""
        raw = await self._runner.read("ZREVRANGE", keys.sessions(tenant), offset, offset + newest - 1)
        return [text(x) for x in raw]

    async def claim(self, key: str, revision: str, *, named: bool) -> Claim:
        """**F** The live route, a sandbox from the pool, or a demand to the provider."""
        out = await self._runner.run(session_scripts.CLAIM, key, revision, int(named))
        w = [text(x) for x in out]
        if len(w) == 1:
            return Claim(w[0])
        return Claim(w[0], w[1], int(w[2] or 0), w[3], w[4], w[5], bool(w[6]), w[7], w[8], w[9] == "1", w[10] == "1")

    async def bound(self, key: str, epoch: int) -> str:
        """The shim answered `bind`."""
        return text((await self._runner.run(session_scripts.BOUND, key, epoch))[0])

    async def end_reason(self, key: str, sandbox: str) -> str:
        """Why the provider ends, or ended, this sandbox of the session; empty when it does not say."""
        asked = await self._runner.read("HGET", keys.DOOMED, sandbox)
        if asked:
            return text(asked)
        record = await self.session(key)
        return record.reason if record is not None and record.sandbox != sandbox else ""

    async def doom(self, sandbox: str, reason: str) -> None:
        """Asks the provider to end a sandbox and to prove it."""
        await self._runner.run(session_scripts.DOOM, sandbox, reason)

    async def drain(self, key: str, epoch: int, *, idle_before: int) -> str:
        """**F** OK: the shim may be asked; BUSY, STALE otherwise. `idle_before` in epoch ms, 0 for whatever."""
        return text((await self._runner.run(session_scripts.DRAIN, key, epoch, idle_before))[0])

    async def undrain(self, key: str, epoch: int) -> str:
        """The shim was busy."""
        return text((await self._runner.run(session_scripts.UNDRAIN, key, epoch))[0])

    async def hibernated(self, key: str, epoch: int, reason: str, saved: str = "") -> str:
        """**F** The shim is quiet; the provider ends the sandbox, the workspace stays. `saved`: the checkpoint made of it, if one was."""
        return text((await self._runner.run(session_scripts.HIBERNATED, key, epoch, reason, saved))[0])

    async def archive(self, key: str, epoch: int, saved: str) -> str:
        """**F** The checkpoint made when its last sandbox ended was verified: the volume goes. OK, BUSY or STALE."""
        return text((await self._runner.run(session_scripts.ARCHIVE, key, epoch, saved))[0])

    async def move(self, key: str, epoch: int, volume: str, *, restore: bool) -> str:
        """**F** It leaves a volume that is out of reach. `restore`: it has files, whose newest checkpoint was verified. OK or STALE."""
        return text((await self._runner.run(move_scripts.MOVE, key, epoch, volume, int(restore)))[0])

    async def stay(self, key: str, epoch: int, volume: str, why: str) -> str:
        """It waits for that volume, out of reach as it is; callers are told `why`. OK or STALE."""
        return text((await self._runner.run(move_scripts.STAY, key, epoch, volume, why))[0])

    async def open_session(self, key: str, identity: SessionIdentity, *, restore: bool = False) -> str:
        """Makes the record of a session without a turn; `restore`: its files are in a checkpoint. OK, DELETED or FOREIGN."""
        who = identity.to_json(restore="1") if restore else identity.to_json()
        return text((await self._runner.run(session_scripts.OPEN, key, identity.tenant, who))[0])

    async def request_stop(self, key: str) -> str:
        """Asks for a drain at once. OK, BUSY (a turn runs or waits) or ABSENT."""
        return text((await self._runner.run(session_scripts.STOP, key))[0])

    async def delete_session(self, key: str) -> str:
        """**F** Ends the session for good. OK, BUSY (cancel its turns first) or ABSENT."""
        return text((await self._runner.run(session_scripts.DELETE, key))[0])

    async def defer(self, key: str, seen_ms: int, next_ms: int) -> None:
        """Moves the next look from where `due` saw it; not where somebody asked for one since (a stop, a claim)."""
        await self._runner.run(session_scripts.DEFER, key, seen_ms, next_ms)

    async def due(self, now_ms: int, limit: int) -> dict[str, int]:
        """Sessions that want a look now, and since when (epoch ms)."""
        raw = await self._runner.read(
            "ZRANGEBYSCORE", keys.SESSIONS_DUE, "-inf", now_ms, "WITHSCORES", "LIMIT", 0, limit
        )
        return {text(key): int(float(text(at))) for key, at in zip(raw[::2], raw[1::2], strict=True)}

    async def announce(self, key: str, epoch: int, descriptor: Descriptor, identity: SessionIdentity) -> Announced:
        """**F** A bound shim says where it is; after a loss this is where routes come from."""
        out = await self._runner.run(loss_scripts.ANNOUNCE, key, epoch, descriptor.to_json(), identity.to_json())
        return Announced(text(out[0]), int(out[1]))

    async def serving(self, sandbox: str, endpoint: str) -> None:
        """A sandbox without a session serves at that URL: a hint, which saves its provider waiting for slower news."""
        await self._runner.read("PUBLISH", keys.HINT_SERVING, f"{sandbox} {endpoint}")
