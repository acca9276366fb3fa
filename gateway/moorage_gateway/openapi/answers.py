"""What an HTTP API answered, as a tool's result that a model can act on. Layer: pure."""

from __future__ import annotations

import base64
from typing import Any

_TEXTS = ("text/", "application/json", "application/xml", "application/yaml", "application/x-www-form-urlencoded")
_ENDINGS = ("+json", "+xml", "+yaml")
_LATIN = frozenset({"iso-8859-1", "latin-1", "latin1"})


def told(status: int, headers: dict[str, str], body: bytes, url: str) -> dict[str, Any]:
    """The result: a refusal (4xx) is an error with its status before it. `headers` by lower-case names; `url` names what is no text."""
    kind, _, rest = headers.get("content-type", "").partition(";")
    kind = kind.strip().lower()
    failed = status >= 400
    if headers.get("content-encoding", "identity").lower() not in ("identity", ""):
        text = f"HTTP {status}, and a body in an encoding that was not asked for: it is dropped. The request was carried out once."
        return _texts([text], error=True)
    first = [f"HTTP {status}" + (f", retry after {after}" if (after := _short(headers.get("retry-after"))) else "")]
    if not body:
        return _texts([f"{first[0]}, with an empty body."], error=failed)
    if _is_text(kind, body):
        latin = any(part.strip().lower().removeprefix("charset=").strip('"') in _LATIN for part in rest.split(";"))
        text = body.decode("latin-1" if latin else "utf-8", "replace")
        return _texts([*(first if failed else []), text], error=failed)
    data = base64.b64encode(body).decode()
    part: dict[str, Any] = {"type": "image", "data": data, "mimeType": kind}
    if not kind.startswith("image/"):
        part = {
            "type": "resource",
            "resource": {"uri": url, "mimeType": kind or "application/octet-stream", "blob": data},
        }
    return {**_texts(first if failed else [], error=failed), "content": [*_parts(first if failed else []), part]}


def _is_text(kind: str, body: bytes) -> bool:
    if kind:
        return kind.startswith(_TEXTS) or kind.endswith(_ENDINGS)
    try:
        return bool(body.decode())
    except UnicodeDecodeError:
        return False


def _parts(texts: list[str]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text} for text in texts]


def _texts(texts: list[str], *, error: bool) -> dict[str, Any]:
    return {"content": _parts(texts), "isError": error}


def _short(value: str | None) -> str:
    return value if value and len(value) <= 40 and value.isascii() and value.isprintable() else ""
