"""Listens: uvicorn around the agent server's application, with one point at which a launcher forks. Layer: agent server.

Everything heavy is imported before `fork_point()`, so that forks share it; everything of one process (settings, event loop, sockets) is
made after it. An idle server sleeps: it has no timer.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn

from moorage.adapters import Adapter
from moorage.serve import settings as settings_module
from moorage.serve.app import App
from moorage.serve.flags import Flags, difference
from moorage.serve.invocations import Invocations
from moorage.serve.responses import Responses
from moorage.serve.settings import Settings

KEEP_ALIVE_SECONDS = 75  # longer than any pool in front of us keeps an idle connection, so the pool closes first


def serve(flags: Flags, adapter: Adapter | None, handler: Callable[..., object] | None) -> None:
    """Serves until SIGTERM or SIGINT. Raises SystemExit with a message when the port or a setting is wrong."""
    config = _config()
    config.load()  # imports the protocol implementation: before the fork
    platform = fork_point()
    try:
        settings = settings_module.from_environ(os.environ, platform=platform, cwd=Path.cwd())
        listener = _listen(settings)
    except (ValueError, OSError) as wrong:
        raise SystemExit(f"moorage: {wrong}") from wrong
    config.timeout_graceful_shutdown = max(1, round(settings.grace))
    asyncio.run(_run(config, settings, listener, flags, adapter, handler))


def fork_point() -> bool:
    """Waits for the launcher's fork where there is one. True: this process was forked for a session."""
    try:
        import moorage_forkpoint  # type: ignore[import-not-found]
    except ImportError:
        return False
    gc.collect()
    gc.freeze()  # a collection in a fork would touch, and so copy, every page of the parent's objects
    moorage_forkpoint.wait()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                line_buffering=True
            )  # it is a pipe: what the agent prints must be seen when it is printed
    return True


async def _run(
    config: uvicorn.Config,
    settings: Settings,
    listener: socket.socket,
    flags: Flags,
    adapter: Adapter | None,
    handler: Callable[..., object] | None,
) -> None:
    server = _Server(config)
    keep_state = flags.durable_state is not False
    responses = None if adapter is None else Responses(adapter, settings, keep_state=keep_state)
    config.loaded_app = App(
        responses,
        None if handler is None else Invocations(handler, settings),
        difference=difference(flags, settings.manifest),
        draining=lambda: server.should_exit,
    )
    if not settings.platform:
        _introduce(settings, listener, flags)
    await server.serve(sockets=[listener])
    if responses is not None:
        await responses.close()


class _Server(uvicorn.Server):
    """uvicorn without its ten wake-ups a second: it waits for the signal, and exits 0 after it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stop = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _end(self) -> None:
        self.force_exit = self.should_exit  # a second signal does not wait for the running turns
        self.should_exit = True
        self._stop.set()

    async def main_loop(self) -> None:
        await self._stop.wait()


async def _unset(scope: object, receive: object, send: object) -> None:
    raise RuntimeError("the application is set before the server starts")


def _config() -> uvicorn.Config:
    return uvicorn.Config(
        _unset,
        loop="asyncio",
        http="auto",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )


def _listen(settings: Settings) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as taken:
        listener.close()
        raise OSError(
            f"cannot listen on {settings.host}:{settings.port} ({taken.strerror}); set PORT to a free one"
        ) from taken
    return listener


def _introduce(settings: Settings, listener: socket.socket, flags: Flags) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"
    lines = [f"{settings.agent} serves at {url} (Ctrl-C ends it)"]
    if "responses" in flags.serves:
        lines.append(
            f"""try: curl -N {url}/responses -H 'content-type: application/json' -d '{{"input": "Hello", "stream": true}}'"""
        )
    else:
        lines.append(f"try: curl -N {url}/invocations -d 'Hello'")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
