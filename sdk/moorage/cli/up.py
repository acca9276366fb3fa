"""`moorage up`: a folder becomes a running agent. Layer: CLI."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from moorage.cli import options, printing

if TYPE_CHECKING:
    from moorage._deploy import Stage

_SNIPPET = """
from openai import OpenAI

client = OpenAI(base_url="{url}", api_key={key})
print(client.responses.create(model="{name}", input="Hello").output_text)
"""


def up(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder with an agent.yaml, or the manifest itself.")
    ] = Path("."),
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds to wait until it is ready.")] = 600.0,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Deploy a folder: pack, upload what is new, apply the manifest, wait until it is ready, print how to call it."""
    shown = _Progress()
    with options.client(url, key) as client:
        try:
            agents = client.deploy(folder, timeout=timeout, progress=shown)
        finally:
            shown.close()
        rows = [_row(agent, client.url) for agent in agents]
    if as_json:
        printing.document({"agents": rows})
        return
    for row in rows:
        printing.out(f"{row['name']} is ready at {row['url']}")
        printing.out(_SNIPPET.format(url=row["url"], name=row["name"], key=_key_text(row["url"], url, key)))
    if rows:
        printing.note(f"Talk to it: moorage chat {rows[-1]['name']}")


def _row(agent: dict[str, Any], platform: str) -> dict[str, Any]:
    base = f"{platform}/v1/agents/{agent['name']}"
    return {
        "name": agent["name"],
        "revision": agent.get("revision"),
        "url": base,
        "responses_url": f"{base}/responses",
        "invocations_url": f"{base}/invocations",
    }


def _key_text(agent_url: str, url: str | None, key: str | None) -> str:
    """The key as source text: itself for a platform of this machine, else where to take it from (screens are shared)."""
    import os

    from moorage.cli import connection

    found = connection.find(url, key, os.environ).key
    local = urlsplit(agent_url).hostname in ("127.0.0.1", "localhost", "::1")
    return f'"{found or "none"}"' if local else '"YOUR-API-KEY"'


class _Progress:
    """Stages of a deployment on stderr; a bar for the upload where stderr is a terminal."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._last = ""

    def __call__(self, stage: Stage) -> None:
        if stage.note:
            self._say(f"{stage.agent}: warning: {stage.note}")
        elif stage.step == "upload":
            self._upload(stage)
        elif stage.step == "wait":
            unmet = [c for c in stage.conditions if str(c.get("status")) != "True"]
            # The first lines, once each: a failure is told whole, with its last log lines, when the wait is over.
            reasons = [str(c.get("message") or c.get("reason") or "not yet").partition("\n")[0] for c in unmet]
            why = "; ".join(dict.fromkeys(reasons))
            self._say(f"{stage.agent}: waiting until it is ready" + (f" ({why})" if why else ""))
        elif stage.step != "ready":
            self._say(f"{stage.agent}: {'packing' if stage.step == 'pack' else 'applying the manifest'}")

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _say(self, text: str) -> None:
        self.close()
        if text != self._last:
            printing.note(printing.clean(text))
            self._last = text

    def _upload(self, stage: Stage) -> None:
        if not sys.stderr.isatty():
            self._say(f"{stage.agent}: uploading {stage.total} bytes")
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task(f"{stage.agent}: uploading", total=stage.total)
            self._bar.start()
        self._bar.update(self._task, completed=stage.done)
