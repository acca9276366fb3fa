"""What is said where a call is not made: to the shim in a word, to the agent in an answer. Layer: pure."""

from __future__ import annotations

from dataclasses import dataclass

from moorage_gateway.journal.answers import Answer, error


@dataclass(frozen=True)
class Refused:
    """No answer. `word`: `again` (with `retry_after`), `fenced`, or `no`, whose `answer` is the agent's."""

    word: str
    answer: Answer


def again(why: str) -> Refused:
    """Not now."""
    return Refused("again", error(503, "server_error", "unavailable", f"{why} Send it again.", retry_after=1))


def refusal(word: str) -> Refused:
    """What a word of the ledger's that permits nothing means."""
    match word:
        case "BEHIND":
            return again("The ledger does not know this attempt, or not any more.")
        case "CANCEL" | "STATE" | "FENCED" | "SUPERSEDED" | "ABSENT" | "UNBOUND":
            said = {
                "CANCEL": "the turn is being cancelled",
                "STATE": "the turn has ended",
                "FENCED": "a later attempt of this turn runs",
                "SUPERSEDED": "another one makes this call",
                "ABSENT": "the turn is not this session's",
                "UNBOUND": "this sandbox does not serve that session",
            }[word]
            return Refused("fenced", error(409, "conflict", "fenced", f"Nothing is called for this attempt: {said}."))
        case "NONE":
            return Refused("no", error(409, "conflict", "not_begun", "This attempt has begun nothing of that kind."))
        case "FULL":
            message = "This turn has made as many calls as one may; end it, and go on in another."
            return Refused("no", error(429, "rate_limit_error", "journal_full", message))
        case _:
            return Refused(
                "no", error(400, "invalid_request_error", "other_request", "This number was another request.")
            )
