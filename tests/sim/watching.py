"""Rules judged at the instant a script ran, where no end state would show it: who may begin, drain, take, be given what.

Two things are compared: what Redis held just before (read in the same journey), and what the world knows to be true (which sandbox
is alive, what runs in it). Nothing here looks at how a script decides.
"""

from __future__ import annotations

from typing import Any

PLACE = ("state", "epoch", "running", "sandbox")
Command = tuple[str | bytes | int, ...]


def _text(value: Any) -> str:
    return "" if value is None else value.decode() if isinstance(value, bytes) else str(value)


class Watch:
    """`before` names the read a judgement needs; `after` judges. Violations go to the world's list."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self._begun: set[tuple[str, str]] = set()
        self._accepted: dict[str, int] = {}  # response → generation of the ledger that took it
        self._epochs: dict[tuple[str, str], int] = {}
        self._given: dict[tuple[str, str], str] = {}  # (ledger, sandbox) → session
        self._flagged: set[str] = set()
        self._deleted: set[tuple[str, str]] = set()
        self._kept: frozenset[tuple[str, str]] = frozenset()  # what of it the copy of Redis holds
        self.queued: set[str] = set()  # turns that had to wait: until they run nobody owns them
        self.session_of: dict[str, str] = {}  # sandbox → session, last known
        self.turns: dict[str, str] = {}  # response → session
        self._judges = {
            "accept": self._accept, "append": self._append,
            "begin": self._begin, "acquire": self._acquire, "drain": self._drain, "gone": self._gone,
            "label": self._label, "hibernated": self._hibernated, "delete": self._delete, "claim": self._claim,
            "ready": self._ready, "announce": self._announce, "close": self._close,
            "cancel": self._cancel, "decide": self._decide, "restore": self._restore, "undrain": self._undrain,
        }  # fmt: skip
        if world.servers is not None:
            self._judges |= {"journal_start": world.servers.started, "journal_complete": world.servers.completed}

    def before(self, name: str, args: tuple[Any, ...]) -> list[Command]:
        """Reads to send ahead of the script."""
        match name:
            case "accept":
                return [("LLEN", f"q:{args[1]}")]
            case "begin":
                session = self.turns.get(str(args[0]), "")
                return [("HMGET", f"s:{session}", *PLACE), ("HGET", f"t:{args[0]}", "cancel")]
            case "journal_start":
                return [("HMGET", f"t:{args[5]}", "begun", "cancel", "state")]
            case "acquire":
                return [("HMGET", f"t:{args[0]}", "owner", "lease")]
            case "drain":
                return [("HMGET", f"s:{args[0]}", *PLACE), ("LLEN", f"q:{args[0]}")]
            case "restore":
                return [("HMGET", f"t:{args[0]}", "owner", "fence"), ("HGET", f"s:{args[3]}", "running")]
            case "label" | "hibernated" | "undrain":
                return [("HMGET", f"s:{args[0]}", *PLACE)]
            case "gone":
                return [("HMGET", f"s:{self.session_of.get(str(args[0]), '')}", *PLACE)]
        return []

    def after(self, who: Any, name: str, args: tuple[Any, ...], out: list[Any], seen: list[Any]) -> None:
        """Judges what just happened."""
        judge = self._judges.get(name)
        if judge is not None:
            judge(who, args, out, seen)

    def kept(self) -> None:
        """A copy of Redis was made."""
        self._kept = frozenset(self._deleted)

    def back(self) -> None:
        """Redis is that copy again: a deletion that came later is undone.

        A writer without a witness (it has not written yet) cannot know, and turns.md §9 promises nothing where none is left.
        """
        self._deleted = set(self._kept)

    def _broken(self, text: str) -> None:
        self._world.violations.append(text)

    def _accept(self, who: Any, args: tuple[Any, ...], out: list[Any], seen: list[Any]) -> None:
        if out[0] != b"OK" or self._accepted.get(args[0]) == who.generation:
            return
        self._accepted[args[0]] = who.generation
        self.turns[args[0]] = args[1]
        if out[2] == b"queued":
            self.queued.add(args[0])
        if out[2] == b"queued" and seen[0] >= int(args[4]):
            self._broken(f"{args[0]} waits as number {seen[0] + 1} of a queue of {args[4]}")
        if (who.ledger, args[1]) in self._deleted:
            self._broken(f"{args[0]} was accepted into a session that was deleted")

    def _append(self, who: Any, args: tuple[Any, ...], out: list[Any], seen: list[Any]) -> None:
        """Under the owner's fence only the owner writes: a longer log than it knows is its own group, sent again as another one.

        It knows what is acknowledged, and may send from further below what a loss took: by the time of the answer all may be back.
        """
        holder = next((g for g in self._world.alive() if g.name == who.who), None)
        held = holder.keeper.get(args[0]) if holder is not None else None
        known = max(int(args[2]), len(held.log) if held is not None else 0)
        if out[0] == b"GAP" and int(out[1]) > known:
            self._broken(
                f"{args[0]}: a group of {len(args) - 3} events at {args[2]} met a log of {int(out[1])} events of its own"
            )

    def _begin(self, who: Any, args: tuple[Any, ...], out: list[Any], seen: list[Any]) -> None:
        if out[0] != b"OK" or (args[0], _text(out[1])) in self._begun:
            return
        self._begun.add((args[0], _text(out[1])))
        if who.generation > self._accepted.get(args[0], who.generation):
            self._broken(
                f"{args[0]} is of generation {self._accepted[args[0]]} and began an attempt in {who.generation}"
            )
        state, epoch, running, _ = map(_text, seen[0])
        if seen[1] == b"1":
            self._broken(f"{args[0]} began an attempt after it was cancelled")
        if args[0] in self.turns and (state != "claimed" or epoch != str(args[3])):
            self._broken(f"{args[0]} began for binding {args[3]} of a session that is {state}, {epoch}")
        if args[0] in self.turns and running != args[0] and not self._world.losses:
            self._broken(f"{args[0]} began although {running or 'no turn'} is the session's running turn")

    def _acquire(self, who: Any, args: tuple[Any, ...], out: list[Any], seen: list[Any]) -> None:
        if out[0] != b"OK":
            return
        owner, lease = _text(seen[0][0]), int(seen[0][1] or 0)
        now = int(self._world.redis_ms())
        if owner not in ("", who.who) and now < lease <= now + 10_000:
            self._broken(f"{args[0]} was taken from {owner}, whose lease is alive")

    def _cancel(self, who: Any, args: tuple[Any, ...], out: list[Any], seen: list[Any]) -> None:
        if out[0] == b"FLAGGED" and args[1] == "cancelled":
            self._flagged.add(args[0])

    def _decide(self, who: Any, args: tuple[Any, ...], out: list[Any], seen: list[Any]) -> None:
        if out[0] == b"OK" and out[1] != b"cancelled" and args[0] in self._flagged and not self._world.losses:
            self._broken(f"{args[0]} was cancelled first and was decided {_text(out[1])}")

    def _close(self, who: Any, args: tuple[Any, ...], out: list[Any], seen: list[Any]) -> None:
        if out[0] == b"OK" and int(args[1]) == 0:
            self._world.unflushed.add(args[0])

    def _restore(self, who: Any, args: tuple[Any, ...], out: list[Any], seen: list[Any]) -> None:
        """Nobody writes a turn anew over one who took it over since, and holds it."""
        owner, fence = _text(seen[0][0]), int(seen[0][1] or 0)
        if out[0] == b"OK" and seen[1]:
            self.queued.add(_text(seen[1]))  # it gave way, and waits
        if out[0] != b"OK" or fence <= int(args[1]):
            return
        holder = next((g for g in self._world.alive() if g.name == owner), None)
        if holder is not None and holder.keeper.get(args[0]) is not None:
            self._broken(f"{args[0]} was written anew by {who.who} over {owner}, which holds it by a higher fence")

    def _undrain(self, who: Any, args: tuple[Any, ...], out: list[Any], seen: list[Any]) -> None:
        if out[0] == b"OK" and not _text(seen[0][3]):
            self._broken(f"{args[0]} was called back from a drain that is over: it has no sandbox")

    def _drain(self, who: Any, args: tuple[Any, ...], out: list[Any], seen: list[Any]) -> None:
        (state, _, running, _), waiting = map(_text, seen[0]), seen[1]
        if out[0] == b"OK" and state == "claimed" and (running or waiting):
            self._broken(f"{args[0]} was drained under {running or waiting}")

    def _alive(self, sandbox: str, session: str) -> bool:
        found = self._world.shims.by_endpoint.get(f"unix:/{sandbox}")
        return found is not None and found.alive and found.session == session

    def _gone(self, who: Any, args: tuple[Any, ...], out: list[Any], seen: list[Any]) -> None:
        session, became = _text(out[1]), _text(out[2])
        if not became or session != self.session_of.get(str(args[0])):
            return
        named = _text(seen[0][3])
        if named and named != args[0] and self._alive(named, session):
            self._broken(f"{session} lost its sandbox {named}, which is alive, by the death of {args[0]}")
        if self._alive(str(args[0]), session):
            self._broken(f"{args[0]} was reported dead and is alive")

    def _label(self, who: Any, args: tuple[Any, ...], out: list[Any], seen: list[Any]) -> None:
        if out[0] == b"OK" and self._alive(_text(seen[0][3]), str(args[0])):
            self._broken(
                f"{args[0]} lost its sandbox {_text(seen[0][3])}, which is alive, to the label of another volume"
            )

    def _hibernated(self, who: Any, args: tuple[Any, ...], out: list[Any], seen: list[Any]) -> None:
        if out[0] != b"OK":
            return
        sandbox = self._world.shims.by_endpoint.get(f"unix:/{_text(seen[0][3])}")
        if sandbox is not None and sandbox.alive and (sandbox.running or sandbox.open) and not sandbox.cut:
            self._broken(f"{args[0]} was hibernated under {sandbox.running or 'an open request'}")

    def _delete(self, who: Any, args: tuple[Any, ...], out: list[Any], seen: list[Any]) -> None:
        if out[0] == b"OK":
            self._deleted.add((who.ledger, str(args[0])))

    def _claim(self, who: Any, args: tuple[Any, ...], out: list[Any], seen: list[Any]) -> None:
        if out[0] in (b"ROUTE", b"CLAIMED"):
            self._bound(who, str(args[0]), int(out[2]), _text(out[3]), given=out[0] == b"CLAIMED")
        world = self._world
        if out[0] == b"CLAIMED" and world.losses and world.noticed():
            sandbox = world.shims.by_endpoint.get(_text(out[4]))
            if sandbox is not None and sandbox.session not in ("", args[0]) and sandbox.bound_at < world.founded[-1][0]:
                self._broken(
                    f"{args[0]} was given {sandbox.id}, which has been {sandbox.session}'s since before the loss"
                )

    def _ready(self, who: Any, args: tuple[Any, ...], out: list[Any], seen: list[Any]) -> None:
        if out[0] == b"OK":
            self._bound(who, str(args[0]), int(args[1]), self._world.sandbox_of(args[2]), given=False)

    def _announce(self, who: Any, args: tuple[Any, ...], out: list[Any], seen: list[Any]) -> None:
        if out[0] in (b"OK", b"RESTORED"):
            self._bound(who, str(args[0]), int(args[1]), self._world.sandbox_of(args[2]), given=False)

    def _bound(self, who: Any, session: str, epoch: int, sandbox: str, *, given: bool) -> None:
        """A session is at this sandbox, by this epoch: never at a lower one later; from the pool it is given to one session."""
        if not self._world.noticed():
            return  # rolled back, and nobody with a witness has written since: turns.md §9 promises nothing here
        ledger = f"{who.ledger}/{len(self._world.losses)}"
        known = self._epochs.get((ledger, session), 0)
        if epoch < known:
            self._broken(f"{session} went back from binding {known} to {epoch}")
        self._epochs[ledger, session] = max(known, epoch)
        if given:
            other = self._given.setdefault((ledger, sandbox), session)
            if other != session:
                self._broken(f"{sandbox} was given to {other} and to {session}")
        self.session_of[sandbox] = session
