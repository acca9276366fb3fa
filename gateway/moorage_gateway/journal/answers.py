"""An answer past the boundary, whole, and as the journal holds it. Layer: pure."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Answer:
    """Status, the headers that reach the agent, and the body as it came."""

    status: int
    headers: Headers
    body: bytes

    def encode(self) -> bytes:
        """A line of JSON, then the body."""
        return orjson.dumps({"status": self.status, "headers": self.headers}) + b"\n" + self.body

    @classmethod
    def decode(cls, data: bytes) -> Answer:
        """What `encode` made. Raises ValueError."""
        head, found, body = data.partition(b"\n")
        if not found:
            raise ValueError("a recorded answer has a head and a body")
        said = orjson.loads(head)
        return cls(int(said["status"]), tuple((str(name), str(value)) for name, value in said["headers"]), body)


def error(status: int, kind: str, code: str, message: str, *, retry_after: float | None = None) -> Answer:
    """A refusal in the form that OpenAI-shaped clients read (protocols.md §1.5)."""
    body = orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})
    return json_answer(status, body, retry_after=retry_after)


def json_answer(status: int, body: bytes, *, retry_after: float | None = None) -> Answer:
    """An answer of ours; one that names no `retry_after` is not to be repeated as it is."""
    more = ("x-should-retry", "false") if retry_after is None else ("retry-after", str(max(1, round(retry_after))))
    return Answer(status, (("content-type", "application/json"), more), body)


def already_done(call: str, answer: Answer | None) -> Answer:
    """What an agent gets instead of a new effect: an earlier attempt's one of the same tool (turns.md §6). For protocols without a form of
    their own; a kind may say the same otherwise."""
    known = answer is not None
    message = (
        "An earlier attempt at this turn made another call of this tool, and this attempt has not made that one. This one was not made; "
        + (
            "the earlier call and its result are given here. "
            if known
            else "what became of the earlier call is not known. "
        )
        + "Go on from it; where a second one is meant, call again."
    )
    found = {"call": call, "result": answer.body.decode("utf-8", "replace") if answer is not None else None}
    body = {
        "message": message,
        "type": "conflict",
        "param": None,
        "code": "already_done_in_earlier_attempt",
        "earlier": found,
    }
    return json_answer(409, orjson.dumps({"error": body}))


def outcome_unknown(what: str) -> Answer:
    """What an agent gets for an effect of which nobody knows whether it happened (turns.md §6)."""
    return error(
        409,
        "conflict",
        "outcome_unknown",
        f"{what} was begun, and whoever carried it is gone: whether it happened is not known. It is not made again by itself; look "
        "whether it has happened, then decide.",
    )
