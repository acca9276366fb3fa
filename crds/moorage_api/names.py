"""Every name the platform makes: ids of responses, items, sessions and keys; partitions; Redis session keys.

Layer: the floor; stdlib only, pure (randomness is a parameter with a default). Shapes: protocols.md §3.4, design.md §4.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string

ALPHABET = string.ascii_letters + string.digits

TENANT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
AGENT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
SESSION = re.compile(r"[A-Za-z0-9_-]{8,128}\Z")  # protocols.md §3.4, platform form
USER = re.compile(r"[A-Za-z0-9_.@:+-]{1,128}\Z")
CONSENT = re.compile(r"oacr_[0-9a-f]{40}\Z")
"""Id of a request for a user's consent that a gateway made."""
APPROVAL = re.compile(
    r"mcpa_call_[0-9a-f]{32}\Z"
)  # a gateway's request for approval, by the id of the call; never an item_id
RESPONSE = re.compile(r"caresp_([0-9a-f]{16})00([A-Za-z0-9]{32})\Z")


# Prefix of an item's id by its type (protocols.md §3.4); types of others' making get `item`.
ITEM_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
    "file_search_call": "fs",
    "web_search_call": "ws",
    "code_interpreter_call": "ci",
    "image_generation_call": "ig",
    "mcp_call": "mcp",
    "mcp_list_tools": "mcpl",
    "mcp_approval_request": "mcpa",
    "mcp_approval_response": "mcpr",
    "oauth_consent_request": "oacr",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "computer_call": "cu",
    "computer_call_output": "cuo",
    "local_shell_call": "lsh",
    "local_shell_call_output": "lsho",
}


_LETTER = bytes(ord(ALPHABET[byte % len(ALPHABET)]) for byte in range(256))
_UNEVEN = bytes(range(256 - 256 % len(ALPHABET), 256))
"""Bytes left out: with them some letters would come more often than others."""


def _random(length: int) -> str:
    found = b""
    while len(found) < length:  # one look at the kernel's randomness is enough nearly always
        found += secrets.token_bytes(2 * length).translate(_LETTER, _UNEVEN)
    return found[:length].decode()


def partition(tenant: str, agent: str, user: str, session: str) -> str:
    """First 16 hex of sha256 over the four, each length-prefixed so that no two quadruples meet (design.md §4)."""
    text = "".join(f"{len(part)}:{part}," for part in (tenant, agent, user, session))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def new_response_id(session_partition: str) -> str:
    """`caresp_` + 16 hex of the session's partition + `00` + 32 random alphanumerics (190 bits)."""
    return f"caresp_{session_partition}00{_random(32)}"


def derived_response_id(session_partition: str, *parts: str) -> str:
    """One that follows from `parts`: 32 hex of their sha256 in the place of the random ones. For a turn that whoever asks for it must find
    again. Who can guess the parts knows the id, and that opens nothing: a response is its owner's."""
    text = "".join(f"{len(part)}:{part}," for part in parts)
    return f"caresp_{session_partition}00{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def partition_of(response_id: str) -> str | None:
    """The session partition a response id names, or None when the id is malformed."""
    found = RESPONSE.match(response_id)
    return found.group(1) if found else None


def item_id(response_id: str, output_index: int, prefix: str) -> str:
    """The id of an output item: a pure function of (response, output index), so every attempt gives the same one."""
    digest = hashlib.sha256(f"{response_id}/{output_index}".encode()).hexdigest()
    return f"{prefix}_{response_id[7:25]}{digest[:32]}"


def new_session_id() -> str:
    """A fresh session id: 63 alphanumerics, as the hosted-agent contract makes them."""
    return _random(63)


def new_sandbox_id() -> str:
    """A sandbox id: `sb-` and 16 lowercase hex."""
    return f"sb-{secrets.token_hex(8)}"


def new_secret() -> str:
    """A bind secret or signing key: 256 random bits, hex."""
    return secrets.token_hex(32)


def session_key(tenant: str, session_partition: str) -> str:
    """How a session is named in Redis and between parts: `TENANT:PARTITION`."""
    return f"{tenant}:{session_partition}"


def revision(digest_source: bytes) -> str:
    """The name of a revision: 12 hex of the sha256 of its canonical spec with the resolved source."""
    return hashlib.sha256(digest_source).hexdigest()[:12]
