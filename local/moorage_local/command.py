"""`moorage dev`: the whole platform on this machine. Layer: local, the outermost frame; the CLI finds it by entry point.

stdout carries results only: with `--json` one line once everything serves. Exit codes: 0 after a stop (with `--once`: the review is
complete), 1 when the platform could not start or ended by itself, 2 for wrong usage.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

Fsync = Literal["always", "everysec"]


def dev(  # noqa: PLR0913, PLR0917 - options of a command line are its parameters
    folder: Annotated[Path, typer.Argument(help="Folder with agents: every agent.yaml in it is deployed.")] = Path("."),
    once: Annotated[bool, typer.Option("--once", help="End after the demonstration's answer.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one line of JSON once everything serves.")] = False,
    ephemeral: Annotated[bool, typer.Option("--ephemeral", help="Forget everything at the end.")] = False,
    demo: Annotated[bool, typer.Option("--demo/--no-demo", help="Ask review-agent for a review at the start.")] = True,
    port: Annotated[int, typer.Option(help="Port of the public URL; 0 picks a free one.", min=0, max=65535)] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    state: Annotated[
        Path | None, typer.Option(help="State folder. Default: MOORAGE_STATE, else the user's data.")
    ] = None,
    fsync: Annotated[Fsync, typer.Option(help="When Valkey writes to disk.")] = "always",
    plain: Annotated[bool, typer.Option("--plain", help="No isolation: agents as plain processes.")] = False,
    otlp: Annotated[
        str | None, typer.Option(envvar="MOORAGE_OTLP_ENDPOINT", help="OTLP/HTTP base URL that traces are sent to.")
    ] = None,
    archive: Annotated[
        float,
        typer.Option(
            "--archive-after",
            envvar="MOORAGE_ARCHIVE_SECONDS",
            min=0,
            metavar="SECONDS",
            help="Unused sessions keep their files in a checkpoint alone after this long; 0: never.",
        ),
    ] = 86_400.0,
    credentials: Annotated[
        Path | None,
        typer.Option(
            envvar="MOORAGE_DEV_CREDENTIALS",
            help="Folder with the keys of model endpoints and toolboxes, as SECRET/KEY; else they come from the environment.",
        ),
    ] = None,
) -> None:
    """Runs the whole platform on this machine until Ctrl-C: Valkey, gateway, sandboxes."""
    from moorage_local.state import default_root

    if ephemeral and state is not None:
        raise typer.BadParameter("give either --ephemeral or --state", param_hint="--state")
    if not folder.is_dir():
        raise typer.BadParameter(f"there is no folder {folder}", param_hint="FOLDER")
    if credentials is not None and not credentials.is_dir():
        raise typer.BadParameter(f"there is no folder {credentials}", param_hint="--credentials")
    if otlp and not otlp.startswith(("http://", "https://")):
        raise typer.BadParameter("must be an http:// or https:// URL", param_hint="--otlp")
    root = None if ephemeral else (state or default_root(dict(os.environ)))
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    from moorage_local.platform import PlatformSettings

    settings = PlatformSettings(
        folder=folder.resolve(), state=root, host=host, port=port, fsync=fsync, plain=plain, otlp_endpoint=otlp or None,
        archive_seconds=archive, credentials=credentials,
    )  # fmt: skip
    raise typer.Exit(asyncio.run(_serve(settings, once=once, as_json=json_, demonstrate=demo)))


async def _serve(settings: object, *, once: bool, as_json: bool, demonstrate: bool) -> int:
    from moorage_api import collector
    from moorage_local import platform
    from moorage_local.state import StateError
    from moorage_local.valkey import ValkeyError

    assert isinstance(settings, platform.PlatformSettings)
    asked = _until_asked()
    console = Console()
    try:
        async with platform.running(settings, say=console.note, on_line=console.line) as running:
            starting = asyncio.ensure_future(running.settled())
            if not await _first(asked, starting):
                return 0
            collector.settle()
            console.started(running)
            if as_json:
                _print_json(running)
            else:
                await asyncio.to_thread(_introduce, running)
            if demonstrate:
                demonstration = asyncio.ensure_future(_demonstrate(running, console))
                if not await _first(asked, demonstration):
                    return 0
                if once:
                    return 0 if demonstration.result() else 1
            elif once:
                return 0
            await _first(asked, asyncio.ensure_future(running.failed.wait()), running.gateway.failed)
            return 1 if running.failed.is_set() or running.gateway.failed.is_set() else 0
    except (StateError, ValkeyError, OSError) as error:
        console.note(f"Error: {error}")
        return 1


class Console:
    """Everything for people, on stderr; what agents wrote without control characters."""

    def __init__(self, write: Callable[[str], object] = sys.stderr.write) -> None:
        self._write = write

    def note(self, text: str) -> None:
        """One remark."""
        from moorage.cli.printing import clean

        self._write("\n".join(clean(line) for line in text.splitlines()) + "\n")

    def line(self, found: object) -> None:
        """One line of an agent, with where it comes from."""
        from moorage_local.agent_logs import AgentLine

        assert isinstance(found, AgentLine)
        if found.line.stream != "shim":
            who = found.line.session[:12] or found.sandbox
            self.note(f"{found.agent}/{who} | {found.line.text}")

    def started(self, running: object) -> None:
        """The URLs, the key, what holds on this machine and what does not."""
        from moorage_local.platform import Platform

        assert isinstance(running, Platform)
        isolation = running.isolation
        self.note(
            f"\nMoorage serves {running.url}/v1\n  API key    {running.api_key}\n  state      {running.state.root}"
        )
        limits = ", ".join(f"{name} by {how}" for name, how in sorted(isolation.limits.items()))
        self.note(f"  isolation  {isolation.mode} ({limits})")
        for sentence in isolation.not_limited:
            self.note(f"             {sentence}")
        for agent in running.agents():
            if agent["ready"]:
                self.note(f"  {agent['name']:<16} {agent['responses_url']}")
            else:
                self.note(f"  {agent['name']:<16} NOT READY: {agent['message'] or 'no reason is known yet'}")


async def _demonstrate(running: object, console: Console) -> bool:
    from moorage_local import demo
    from moorage_local.platform import Platform

    assert isinstance(running, Platform)
    if not any(agent["name"] == demo.AGENT and agent["ready"] for agent in running.agents()):
        console.note(f"no demonstration: {demo.AGENT} is not ready")
        return False
    console.note(f"\n> {demo.QUESTION}\n")
    shown = await demo.show(running.url, running.api_key, _out)
    _out("\n")
    if not shown.complete:
        console.note(f"the review is not complete: {shown.detail}")
    return shown.complete


def _introduce(running: object) -> None:
    """Tells the other commands of this user where the platform is; not for scripts, which have the line of JSON."""
    from moorage.cli import connection
    from moorage_local.platform import Platform

    assert isinstance(running, Platform)
    connection.save(connection.config_path(os.environ), running.url, running.api_key)


def _out(text: str) -> None:
    from moorage.cli.printing import out

    out(text, end="")


def _print_json(running: object) -> None:
    from moorage_local.platform import Platform

    assert isinstance(running, Platform)
    keep = ("name", "responses_url", "invocations_url")
    agents = [{name: agent[name] for name in keep} for agent in running.agents()]
    _out(json.dumps({"url": running.url, "api_key": running.api_key, "agents": agents}) + "\n")


def _until_asked() -> asyncio.Event:
    """Set by SIGINT or SIGTERM; a second signal ends the process at once (children are tied to it)."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask() -> None:
        if asked.is_set():
            os._exit(130)
        asked.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask)
    return asked


async def _first(asked: asyncio.Event, work: asyncio.Future[Any], *others: asyncio.Event) -> bool:
    """Waits for the work, unless somebody asks to stop; False then, and the work is cancelled."""
    waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(event.wait()) for event in (asked, *others)]
    try:
        await asyncio.wait([work, *waits], return_when=asyncio.FIRST_COMPLETED)
        if asked.is_set():
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            return False
        if not work.done():
            work.cancel()
        else:
            work.result()
        return True
    finally:
        for wait in waits:
            wait.cancel()
