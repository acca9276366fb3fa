"""What must hold: while it runs (what a shim is told to run), and at the end (turns.md §9). Finds, never helps."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

from moorage_api.wire.shim import Start
from moorage_gateway.upstream import Route
from sim.sandboxes import Sandbox

TERMINAL = ("response.completed", "response.failed", "response.incomplete")
GIVEN_UP = "together with its owner"  # the message of a turn given up by the sweep
GENERATION = "[ledger_lost]"


@dataclass
class Seen:
    """One client's view of a response."""

    response: str
    events: dict[int, bytes] = field(default_factory=dict)
    cursor: int = -1
    ended: bool = False
    end: bytes = b""
    left: bool = False  # it went away and does not come back


@dataclass
class Told:
    """A turn a client was told of. `left_at`: its only reader went away for good (a foreground turn that is not stored)."""

    response: str
    session: str
    key: str
    kind: str
    store: bool
    background: bool
    left_at: float | None = None
    cancelled: bool = False
    deleted: bool = False  # its session was deleted, which cancels it


class Judge:
    """Collects what happened; `end` compares."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self.told: dict[str, Told] = {}
        self.seen: list[Seen] = []
        self.starts: dict[str, list[tuple[int, int]]] = {}
        self._volumes: dict[str, set[str]] = {}
        self._workspace: dict[str, str] = {}
        self.removed: set[str] = set()  # sessions that were deleted

    def broken(self, text: str) -> None:
        """A promise is broken."""
        self._world.violations.append(text)

    def may_lose(self, response: str) -> bool:
        """turns.md §9, not promised: Redis lost and the owner dead too (a waiting turn has none), or the store."""
        world = self._world
        owned = response not in world.unflushed and response not in world.watch.queued
        return bool(world.losses) and (bool(world.owner_deaths) or not owned)

    # -- while it runs ------------------------------------------------------------------------------------------------

    def bound(self, volume: str, session: str) -> None:
        """A shim took a binding."""
        self._volumes.setdefault(volume, set()).add(session)

    def relayed(self, route: Route, sandbox: Sandbox) -> None:
        """A raw request reached an agent."""
        if sandbox.session != route.session_key:
            self.broken(f"a call of {route.session_key} reached the sandbox of {sandbox.session}")
        self._written(route.session_key, sandbox)

    def started(self, call: Start, sandbox: Sandbox) -> None:
        """A shim started an attempt."""
        world, turn = self._world, call.turn
        if sandbox.session != call.session:
            self.broken(f"{turn} started in the sandbox of another session")
        if turn in world.unstored:
            world.counts["attempts of turns not stored"] += 1
        for other in world.shims.by_endpoint.values():
            same = other is not sandbox and other.alive and other.attempt is not None and other.attempt.turn == turn
            if same and other.attempt.begun in other.running and not other.cut:
                self.broken(f"{turn} runs in {other.id} and {sandbox.id}")
        self._alone(call)
        volumes = [x for x in world.shims.by_endpoint.values() if x.alive and not x.cut and x.volume == sandbox.volume]
        if len(volumes) > 1:
            self.broken(f"{sandbox.volume} is written by {[x.id for x in volumes]}")
        self._written(call.session, sandbox)
        self.starts.setdefault(turn, []).append((call.fence, call.attempt))
        world.counts["attempts"] += 1

    def _alone(self, call: Start) -> None:
        """An attempt that nobody superseded runs only while its turn is the session's running one."""
        world = self._world
        if world.losses:
            return
        running, (state, fence) = world.redis.pipeline(
            [("HGET", f"s:{call.session}", "running"), ("HMGET", f"t:{call.turn}", "state", "fence")]
        )
        if state == b"running" and int(fence) == call.fence and running is not None and running.decode() != call.turn:
            self.broken(f"{call.turn} started although {running.decode() or 'no turn'} is the session's running turn")

    def _written(self, session: str, sandbox: Sandbox) -> None:
        """A session keeps its workspace: after a loss too, if its sandbox lives, is reached and had the time to say so.

        turns.md §7 gives 10 s for that, and §3 an announcement every 10 s: for one that got no answer there may be no second.
        Of two bindings the highest epoch wins (§7): the newer one has the workspace, though one of before an earlier loss, cut off then,
        may be the first to come back.
        """
        world = self._world
        first = self._workspace.setdefault(session, sandbox.volume)
        if first == sandbox.volume or session in self.removed:
            return
        lost = max(world.losses, default=0.0)
        living = [s for s in world.shims.by_endpoint.values() if s.volume == first and s.alive and s.session]
        if not any(s.epoch > sandbox.epoch for s in living):
            self._workspace[session] = sandbox.volume
        old = [s for s in living if not s.cut]
        steady = bool(old) and old[0].whole_since < lost - 1.0 and world.dark_at < lost and world.noticed()
        steady = steady and sandbox.epoch > old[0].epoch and old[0].unheard_at < world.founded[-1][0]
        if not world.losses or steady:
            self.broken(f"{session} has files on {first} and was given {sandbox.volume}")

    # -- at the end ---------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Every turn, every volume, every key."""
        for told in self.told.values():
            if told.store:
                self._stored(told)
            else:
                self._unstored(told)
            self._one_end(told)
        for volume, sessions in self._volumes.items():
            if len(sessions) > 1:
                self.broken(f"{volume} was given to {len(sessions)} sessions")
        by_key: dict[str, set[str]] = {}
        for response, told in self.told.items():
            by_key.setdefault(told.key, set()).add(response)
        if not self._world.losses:
            for key, responses in by_key.items():
                ran = [r for r in responses if self.starts.get(r)]
                if len(ran) > 1:
                    self.broken(f"{key} ran as {len(ran)} turns")

    def _one_end(self, told: Told) -> None:
        """The outcome never changes: whoever saw an end saw the same one, whatever was lost."""
        ends = {json.loads(s.end)["response"]["status"] for s in self.seen if s.response == told.response and s.ended}
        document = self.document(told.response) if told.store else None
        if document is not None:
            ends.add(json.loads(document)["response"]["status"])
        only_redis = not told.store or told.response in self._world.unflushed
        if len(ends) > 1 and not (self._world.losses and only_redis):
            self.broken(f"{told.response} ended as {sorted(ends)}")

    def document(self, response: str) -> bytes | None:
        """The stored end of a turn."""
        folder = f"t/dev/responses/{response}/"
        objects: dict[str, bytes] = self._world.store.objects
        return objects.get(folder + "lost.json") or objects.get(folder + "response.json")

    def _stored(self, told: Told) -> None:
        response, world = told.response, self._world
        document = self.document(response)
        if document is None:
            if told.background or not self.may_lose(response):
                state = world.redis.execute_command("HGETALL", "t:" + response)
                self.broken(f"{response} was accepted and never ended (state {state})")
            return
        key = f"t/dev/responses/{response}/response.json"
        if len(world.store.written.get(key, ())) > 1 and not world.losses:
            self.broken(f"{response} was stored with different bytes")
        stored = json.loads(document)
        events = stored["events"]
        numbers = [e["sequence_number"] for e in events]
        if numbers != list(range(len(events))):
            self.broken(f"{response}: stored numbers {numbers}")
        terminals = [e["type"] for e in events if e["type"] in TERMINAL]
        if len(terminals) != 1:
            self.broken(f"{response}: {len(terminals)} terminal events")
        self._views(told, events)
        self._text(told, stored["response"], events)
        self._outcome(told, stored["response"])

    def _views(self, told: Told, events: list[dict[str, Any]]) -> None:
        for seen in self.seen:
            if seen.response != told.response or self.may_lose(told.response):
                continue
            if not seen.ended and not seen.left:
                self.broken(f"{told.response}: a client never saw the end")
            for number, data in seen.events.items():
                if number >= len(events) or json.loads(data) != events[number]:
                    self.broken(f"{told.response}: event {number} that was seen is not what was stored")
                    break

    def _outcome(self, told: Told, body: dict[str, Any]) -> None:
        response, losses = told.response, self._world.losses
        cancel, outcome = self._world.redis.execute_command("HMGET", f"t:{response}", "cancel", "outcome")
        if cancel == b"1" and outcome != b"cancelled" and not losses:
            self.broken(f"{response} was cancelled first and ended {outcome}")
        status, said = body["status"], json.dumps(body.get("error"))
        # Its session was deleted; after a loss, perhaps before the turn was back.
        deleted = told.deleted or (bool(losses) and told.session in self.removed)
        if status == "completed" or (status == "cancelled" and (told.cancelled or deleted or told.left_at is not None)):
            return
        if status == "failed" and losses and (GENERATION in said) and (GIVEN_UP not in said or self.may_lose(response)):
            return
        if status == "failed" and deleted:
            return
        if "[session_not_ready]" in said and losses and (self._world.long_pause or len(losses) > 1):
            return  # its owner was stopped, or every loss began the wait anew, for as long as a sandbox may take
        self.broken(f"{response} ended {status}: {said}")

    def _unstored(self, told: Told) -> None:
        """Nothing stored; ended in Redis (keys of an ended turn stay for half an hour); cancelled if everyone left."""
        world = self._world
        if self.document(told.response) is not None:
            self.broken(f"{told.response} was not to be stored and is")
        if world.losses:
            return
        state = world.redis.execute_command("HGET", f"t:{told.response}", "state")
        if state not in (b"completed", b"cancelled", b"failed"):
            self.broken(f"{told.response}, not stored, is left {state}")
        elif state == b"completed" and told.left_at is not None:
            self.broken(f"{told.response} ran to its end although its only reader had left long before")

    def _text(self, told: Told, body: dict[str, Any], events: list[dict[str, Any]]) -> None:
        said: dict[str, str] = {}
        for e in events:
            if e["type"] == "response.output_text.delta":
                said[e["item_id"]] = said.get(e["item_id"], "") + e["delta"]
        for item in body["output"]:
            text = "".join(p.get("text", "") for p in item.get("content", []))
            if said.get(item["id"], "") != text:
                self.broken(f"{told.response}: deltas and text differ")
        if body["status"] == "completed" and told.kind != "other":
            words = "".join(words_of(told.response))
            texts = ["".join(p["text"] for p in i["content"]) for i in body["output"]]
            if texts != [words]:
                self.broken(f"{told.response}: said {texts}, the agent said {words!r}")


def words_of(turn: str, *, long: bool = False) -> list[str]:
    """What the agent of a turn says in its first attempt."""
    base = random.Random(turn)
    return [f"w{base.randrange(100)} " for _ in range(220 if long else base.randrange(4, 12))]
