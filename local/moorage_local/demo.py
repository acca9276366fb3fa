"""The first thing `moorage dev` shows: one real request to `review-agent`, its answer streamed to the terminal.

Layer: local. A client like any other: it calls the public URL with the API key, through the same door as everyone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import httpx2

AGENT = "review-agent"
QUESTION = "Review pypi:httpx 0.27.2..0.28.1"
SECTIONS = ("## Test coverage", "## New dependencies", "## Breaking API changes")
_WITHIN = 600.0


@dataclass(frozen=True)
class Shown:
    """How the demonstration ended: `complete` when the answer was completed and has every section."""

    complete: bool
    text: str
    detail: str = ""


async def show(url: str, api_key: str, write: Callable[[str], None]) -> Shown:
    """Asks for a review and writes the answer as it comes."""
    text, status, detail = "", "", ""
    body = {"model": AGENT, "input": QUESTION, "stream": True}
    timeout = httpx2.Timeout(_WITHIN, connect=10.0)
    async with httpx2.AsyncClient(timeout=timeout, trust_env=False) as client:
        headers = {"authorization": f"Bearer {api_key}"}
        async with client.stream("POST", f"{url}/v1/responses", json=body, headers=headers) as answer:
            if answer.status_code != 200:
                return Shown(False, "", f"HTTP {answer.status_code}: {(await answer.aread()).decode()[:2000]}")
            async for line in answer.aiter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                event = json.loads(line[6:])
                if event["type"] == "response.output_text.delta":
                    text += event["delta"]
                    write(event["delta"])
                elif event["type"] in ("response.completed", "response.failed", "response.incomplete"):
                    status = event["response"]["status"]
                    detail = json.dumps(event["response"].get("error") or "")
    complete = status == "completed" and all(section in text for section in SECTIONS)
    return Shown(complete, text, "" if complete else f"status {status or 'unknown'} {detail}")
