"""How a turn ended, in the words of the Responses API: outcome, error, usage, reason of incompleteness.

Layer: pure. The normaliser reads outcomes off an agent's terminal event; the engine makes its own for faults and cancels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

MAX_MESSAGE = 8 * 1024  # bytes of an agent's error message that are kept
MAX_COUNT = 2**53  # tokens; beyond it a number is no count

Status = Literal["completed", "failed", "incomplete", "cancelled"]


@dataclass(frozen=True)
class Outcome:
    """How a turn ended. `error` is set when failed, `incomplete_details` when incomplete; `usage` is in full shape or None.

    An agent's terminal event gives completed, failed or incomplete; `cancelled` is the engine's alone.
    """

    status: Status
    error: dict[str, Any] | None = None
    incomplete_details: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None


# protocols.md §1.3; the image codes are the stock client's.
ERROR_CODES = frozenset(
    "server_error rate_limit_exceeded invalid_prompt data_residency_mismatch bio_policy misalignment_policy_violation "
    "vector_store_timeout invalid_image invalid_image_format invalid_base64_image invalid_image_url image_too_large "
    "image_too_small image_parse_error image_content_policy_violation invalid_image_mode image_file_too_large "
    "unsupported_image_media_type empty_image_file failed_to_download_image image_file_not_found".split()
)

_SYNONYMS: Mapping[str, str] = {
    "rate_limit_error": "rate_limit_exceeded",
    "rate_limit": "rate_limit_exceeded",
    "too_many_requests": "rate_limit_exceeded",
    "429": "rate_limit_exceeded",
    "invalid_request": "invalid_prompt",
    "invalid_request_error": "invalid_prompt",
    "content_filter": "invalid_prompt",
}

_REASONS: Mapping[str, str] = {"length": "max_output_tokens", "max_tokens": "max_output_tokens"}

NO_MESSAGE = "The agent reported a failure without a message. Its log has more: look at the sandbox's last lines."


def bounded(message: str, limit: int = MAX_MESSAGE) -> str:
    """`message` cut to `limit` bytes of UTF-8, saying so at its end."""
    raw = message.encode("utf-8", "replace")
    if len(raw) <= limit:
        return raw.decode()
    mark = "… (cut)"
    return raw[: limit - len(mark.encode())].decode("utf-8", "ignore") + mark


def error_of(raw: Any) -> dict[str, Any]:
    """An agent's error as `{code, message}`: the code mapped into the allowed set, an unknown one kept as `type`."""
    error = raw if isinstance(raw, Mapping) else {}
    message = raw if isinstance(raw, str) else error.get("message")
    text = message if isinstance(message, str) and message else NO_MESSAGE
    named = error.get("code") or error.get("type") or "server_error"
    original = bounded(str(named), 128)
    code = original if original in ERROR_CODES else _SYNONYMS.get(original, "server_error")
    found: dict[str, Any] = {"code": code, "message": bounded(text)}
    if code != original:
        found["type"] = original
    if isinstance(error.get("param"), str):
        found["param"] = bounded(error["param"], 128)
    return found


def incomplete_details_of(raw: Any) -> dict[str, Any]:
    """`{reason}`; what an agent says beside the allowed reasons is passed on, nothing said is `max_output_tokens`.

    An incomplete response without a reason is in practice one that met its token limit.
    """
    reason = raw.get("reason") if isinstance(raw, Mapping) else raw
    if not isinstance(reason, str) or not reason:
        return {"reason": "max_output_tokens"}
    return {"reason": _REASONS.get(reason, bounded(reason, 128))}


def _count(raw: Any, *keys: str) -> int:
    source = raw if isinstance(raw, Mapping) else {}
    for key in keys:
        value = source.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < MAX_COUNT:
            return int(value)
    return 0


def usage_of(raw: Any) -> dict[str, Any] | None:
    """Usage in full shape (protocols.md §1.3), or None when none was given. Chat-style names are understood."""
    if not isinstance(raw, Mapping) or not raw:
        return None
    given, made = _count(raw, "input_tokens", "prompt_tokens"), _count(raw, "output_tokens", "completion_tokens")
    inner = raw.get("input_tokens_details") or raw.get("prompt_tokens_details")
    outer = raw.get("output_tokens_details") or raw.get("completion_tokens_details")
    return {
        "input_tokens": given,
        "input_tokens_details": {
            "cached_tokens": _count(inner, "cached_tokens"),
            "cache_write_tokens": _count(inner, "cache_write_tokens"),
        },
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": _count(outer, "reasoning_tokens")},
        "total_tokens": _count(raw, "total_tokens") or given + made,
    }


def usage_sum(usages: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """The usage of several merged responses (each in full shape), or None for none."""
    total: dict[str, Any] | None = None
    for usage in usages:
        total = usage if total is None else _added(total, usage)
    return total


def _added(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {k: _added(v, other[k]) if isinstance(v, dict) else v + other[k] for k, v in one.items()}


def from_terminal(status: str, response: Mapping[str, Any], reported: Any, usage: dict[str, Any] | None) -> Outcome:
    """The outcome an agent's terminal event tells. `reported` is the `error` event seen before it, or None.

    | status     | error                                       | incomplete_details |
    |------------|---------------------------------------------|--------------------|
    | completed  | None                                        | None               |
    | incomplete | None                                        | reason             |
    | failed     | response.error, else `reported`, else said so | None             |
    """
    if status == "incomplete":
        return Outcome("incomplete", None, incomplete_details_of(response.get("incomplete_details")), usage)
    if status == "failed":
        return Outcome("failed", error_of(response.get("error") or reported), None, usage)
    return Outcome("completed", None, None, usage)
