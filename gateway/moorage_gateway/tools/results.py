"""What a tool gave, or why it gave nothing, as a result that agent and model can act on. Layer: pure."""

from __future__ import annotations

from typing import Any

from moorage_gateway.tools.rpc import META

MOST_PARTS = 1000
MOST_TEXT = 2000
"""Characters of a server's own error that are passed on."""
OUTCOME = "dev.moorage/outcome"
"""In `_meta` of a result of ours: one word for programs. `unknown`, `unreachable`, `late`, `too_large`, `left_alone`, `at_capacity`,
`no_credential`, `held_back`, `refused`, `malformed`, `already_done`, `approval_required`, `approval_refused`, `consent_required`."""
CONSENT = "dev.moorage/consentLink"
"""In `_meta` of a `consent_required`: the link."""
EARLIER = "dev.moorage/structuredContent"
"""In `_meta` of an `already_done`: the earlier call's `structuredContent`, where it had one."""


def failed(word: str, text: str) -> dict[str, Any]:
    """A tool error: `text` says what happened, and what can be done."""
    return {"content": [{"type": "text", "text": text}], "isError": True, "_meta": {OUTCOME: word}}


def consent(tool: str, upstream: str, user: str, link: str) -> dict[str, Any]:
    """The user has to consent first (decisions/0035)."""
    text = (
        f"consent_required: '{tool}' was not called: user '{user}' must first allow this platform to act for them at {upstream}. Give them "
        f"this link, which is theirs alone and good for a quarter of an hour, and end your answer: {link} "
        "Once they have allowed it, make the same call."
    )
    told = failed("consent_required", text)
    told["_meta"][CONSENT] = link
    return told


def waits_for_consent(found: dict[str, Any]) -> bool:
    """Whether that is the result of a call that was not made for lack of it."""
    return bool((found.get("_meta") or {}).get(OUTCOME) == "consent_required")


def unknown(tool: str, upstream: str) -> dict[str, Any]:
    """Nobody knows whether it happened (turns.md §6)."""
    text = (
        f"outcome_unknown: the call of '{tool}' was sent to {upstream}, and its answer was lost. Whether it happened is not known. It is "
        "not made again by itself: look whether it has happened, then decide."
    )
    return failed("unknown", text)


def earlier(tool: str, call: str, found: dict[str, Any] | None) -> dict[str, Any]:
    """Instead of a call: an earlier attempt's other `call` (its arguments) of the same tool, and its result, None where nobody knows it
    (turns.md §6)."""
    text = (
        f"already_done_in_earlier_attempt: this call of '{tool}' was not made. An earlier attempt at this turn called it with "
        f"{call}, and this attempt has not made that call. "
    )
    ending = " Go on from it; where a second call is meant, call again."
    if found is None:
        return failed("already_done", f"{text}Whether that call happened is not known: look.{ending}")
    how = "It failed; what it said follows." if found.get("isError") else "Its result follows."
    told = failed("already_done", f"{text}{how}{ending}")
    told["content"] += found["content"]
    if "structuredContent" in found:
        told["_meta"][EARLIER] = found["structuredContent"]
    return told


def checked(found: dict[str, Any], tool: str) -> dict[str, Any]:
    """A server's result with what agents need of it, or an error in its place."""
    if found.get("resultType", "complete") != "complete":
        text = f"'{tool}' asks for input of a person, which nobody can give it here. It was not carried out."
        return failed("refused", text)
    content, error = found.get("content"), found.get("isError", False)
    if not isinstance(content, list) or not isinstance(error, bool) or not all(map(_is_part, content)):
        return _malformed(tool, "is not a tool's result")
    if len(content) > MOST_PARTS:
        return _malformed(tool, f"has more than {MOST_PARTS} parts")
    kept: dict[str, Any] = {"content": content, "isError": error}
    if found.get("structuredContent") is not None:
        kept["structuredContent"] = found["structuredContent"]
    meta = found.get("_meta")
    if isinstance(meta, dict):
        own = {name: value for name, value in meta.items() if not name.startswith((META, "dev.moorage/"))}
        kept |= {"_meta": own} if own else {}
    return kept


def _is_part(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("type"), str)


def _malformed(tool: str, what: str) -> dict[str, Any]:
    text = f"'{tool}' was called, and what its server answered {what}. It may have been carried out; it is not called again by itself."
    return failed("malformed", text)
