"""Wherever a URL or a host is taken, no form of an address leads to a private or a metadata one: as written, as resolved, after a
redirect, when the name rebinds (S3, T2, F42).

    place                          taken by                     what is dialled is noted at
    the egress proxy               spec.egress, the agent       its connector
    a build's way out              spec.source.git              the same
    ModelEndpoint, Toolbox         baseUrl, mcp.url             the loop's own connect
"""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import ValidationError

from component.egress.forms import NEVER, NOT_GLOBAL, PRIVATE, PUBLIC, URL_FORMS
from component.egress.world import KEY, TOKEN, World
from fakes import pod_tokens as cluster
from moorage_api import tokens
from moorage_api.catalog import AgentEntry
from moorage_api.kinds.source import Git
from moorage_gateway.clock import SystemClock
from moorage_gateway.models.asking import AskFault, Request, Upstreams
from moorage_gateway.tools.mcp import Eras, Known, McpUpstream, Place
from moorage_gateway.tools.opening import Opening
from moorage_gateway.tools.servers import ToolFault
from moorage_gateway.tools.sessions import Sessions
from moorage_gateway.tools.shared_sessions import SharedSessions
from moorage_operator.build_objects import reach

pytestmark = [pytest.mark.component, pytest.mark.isolation]

RESOLVED = [*NEVER, *PRIVATE, *NOT_GLOBAL]


def test_the_lists_hold_enough_forms() -> None:
    assert len(set(URL_FORMS)) == len(URL_FORMS) >= 100 and len(set(RESOLVED)) == len(RESOLVED) >= 70


# The egress proxy


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    await made.start()
    yield made
    await made.aclose()


def listing(world: World, entries: list[str]) -> None:
    """The agent's manifest lists these, whatever the kind's own check says of them."""
    entry = AgentEntry("acme", "hello", (), frozenset(), "moorage", {"egress": entries})
    world.catalog.get = lambda tenant, agent: entry  # type: ignore[method-assign]


def every_name_is(world: World, address: str) -> None:
    """What is left to a resolver leads there: as the most obliging one would have it."""

    async def resolve(host: str) -> list[str]:
        return [address]

    world.names.resolve = resolve  # type: ignore[method-assign]


async def test_the_proxy_reaches_no_form_of_an_address_though_it_is_listed(world: World) -> None:
    through = []
    every_name_is(world, "127.0.0.1")
    for form in URL_FORMS:
        listing(world, [form, f"{form}:443", "*"])
        for line in (f"CONNECT {form}:443", f"CONNECT {form}", f"GET http://{form}/", f"GET http://{form}:443/"):
            said = await world.say(f"{line} HTTP/1.1\r\nProxy-Authorization: Bearer {TOKEN}\r\n\r\n".encode())
            if not said.startswith(b"HTTP/1.1 4") or world.wire.asked:
                through.append((line, said[:60], world.wire.asked))
    assert through == []


async def test_the_proxy_reaches_no_address_that_a_listed_name_resolves_to(world: World) -> None:
    through = []
    for address in RESOLVED:
        world.names.known["rebind.example"] = [address]
        if not (await world.connect("rebind.example:443")).startswith(b"HTTP/1.1 403 ") or world.wire.asked:
            through.append(address)
    assert through == []
    world.names.known["rebind.example"] = [*RESOLVED, PUBLIC[0]]
    assert b" 200 " in await world.connect("rebind.example:443")
    assert world.wire.asked == [(PUBLIC[0], 443)]


async def test_a_name_that_rebinds_changes_nothing_for_the_proxy(world: World) -> None:
    through = []
    for address in RESOLVED:
        answers = itertools.cycle([[PUBLIC[0]], [address]])

        async def resolve(host: str, answers: Any = answers) -> list[str]:
            return list(next(answers))

        world.names.resolve = resolve  # type: ignore[method-assign]
        said = [await world.connect("rebind.example:443") for _ in range(2)]
        if b" 200 " not in said[0] or not said[1].startswith(b"HTTP/1.1 403 "):
            through.append(address)
    assert through == [] and {address for address, _ in world.wire.asked} == {PUBLIC[0]}


# A build's way out


async def test_a_build_reaches_no_form_of_an_address_that_a_manifest_names(world: World) -> None:
    world.catalog.pod_tokens = cluster.published()
    through = []

    async def asked(where: tuple[str, ...], target: str) -> bytes:
        who = tokens.BuildIdentity("moorage-build-1", "moorage-sandbox", "acme", "hello", "", where)
        shown = cluster.token(cluster.claims("moorage-build-1-abcde", SystemClock().now_ms() / 1000))
        head = f"Proxy-Authorization: Bearer {tokens.sign_build(who, KEY)}\r\nx-moorage-pod-token: {shown}\r\n"
        return await world.say(f"CONNECT {target} HTTP/1.1\r\n{head}\r\n".encode())

    passed = []
    by_name = world.names.resolve
    every_name_is(world, "127.0.0.1")
    for form in URL_FORMS:
        try:
            git = Git(url=f"https://{form}/agents.git")
            where = reach(git)
        except ValidationError:
            continue
        passed.append(form)
        if not (await asked(where, where[0])).startswith(b"HTTP/1.1 403 ") or world.wire.asked:
            through.append(form)
    assert through == [] and len(passed) < len(URL_FORMS) / 2, passed
    world.names.resolve = by_name  # type: ignore[method-assign]
    for address in RESOLVED:
        world.names.known["other.example"] = [address]
        if not (await asked(("other.example:443",), "other.example:443")).startswith(b"HTTP/1.1 403 "):
            through.append(address)
    for address in NEVER:
        world.names.known["git.example"] = [address]
        if not (await asked(("git.example:443",), "git.example:443")).startswith(b"HTTP/1.1 403 "):
            through.append(address)
    assert through == [] and world.wire.asked == []
    world.names.known["git.example"] = ["10.0.0.1"]
    assert b" 200 " in await asked(("git.example:443",), "git.example:443"), "a host of the platform's own settings"


# Models and tools


@dataclass
class Dialling:
    """The gateway's way to models and tools, with a resolver of ours; what it dials is noted, and goes nowhere but to `server`."""

    upstreams: Upstreams
    server: int
    dialled: list[str] = field(default_factory=list)
    known: dict[str, Callable[[], list[str]]] = field(default_factory=dict)
    location: str = ""

    async def model(self, url: str) -> str:
        """What the endpoint said, or why it was not asked."""
        try:
            async with self.upstreams.ask(Request("POST", url, {}, b"{}", 2, 2, 2)) as coming:
                return str(coming.status)
        except AskFault as fault:
            return f"not asked: {fault}" if not fault.sent else f"broken: {fault}"

    async def tool(self, url: str) -> str:
        """The same of a tool server."""
        place = Place("k", url, Opening(), 1 << 20)
        clock = SystemClock()
        shared = SharedSessions(None, clock.monotonic)  # type: ignore[arg-type]  # of no agent's session: nothing is remembered
        known = Known(Eras(), Sessions(clock.monotonic, clock.sleep), shared)
        try:
            await McpUpstream(place, self.upstreams, known, "1").tools(2)
        except ToolFault as fault:
            return f"not asked: {fault}" if not fault.sent else f"broken: {fault}"
        return "listed"


@pytest.fixture
async def dialling(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Dialling]:
    allowed: set[str] = set()
    loop = asyncio.get_running_loop()
    real_dial, real_names = loop.sock_connect, socket.getaddrinfo

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = re.search(rb"content-length: ([0-9]+)", head.lower())
        await reader.readexactly(int(size[1]) if size else 0)
        writer.write(
            b"HTTP/1.1 307 x\r\nlocation: %b\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % made.location.encode()
        )
        writer.close()

    async def dial(sock: socket.socket, address: Any) -> None:
        made.dialled.append(str(address[0]))
        if address[:2] != ("127.0.0.1", made.server):
            raise ConnectionRefusedError(111, "refused")
        await real_dial(sock, address)

    def names(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        if host in made.known:
            return [found for each in made.known[host]() for found in real_names(each, port, *rest, **options)]
        return real_names(host, port, *rest, **options)

    server = await asyncio.start_server(redirect, "127.0.0.1", 0)
    made = Dialling(Upstreams(lambda: frozenset(allowed)), server.sockets[0].getsockname()[1])
    allowed.add(f"127.0.0.1:{made.server}")
    monkeypatch.setattr(loop, "sock_connect", dial)
    monkeypatch.setattr(socket, "getaddrinfo", names)
    yield made
    await made.upstreams.aclose()
    server.close()


ASKED = pytest.mark.parametrize("ask", [Dialling.model, Dialling.tool], ids=["model", "tool"])
Ask = Callable[[Dialling, str], Any]


@ASKED
async def test_no_form_of_an_address_is_dialled(dialling: Dialling, ask: Ask) -> None:
    through = []
    for form in URL_FORMS:
        for url in (
            f"https://{form}/v1",
            f"https://{form}:9/v1",
            f"http://{form}:9/v1",
        ):
            said = await ask(dialling, url)
            if not said.startswith("not asked") or dialling.dialled:
                through.append((url, said, list(dialling.dialled)))
                dialling.dialled.clear()
    assert through == []


@ASKED
async def test_nothing_is_dialled_that_a_name_resolves_to(dialling: Dialling, ask: Ask) -> None:
    through = []
    for address in RESOLVED:
        dialling.known["models.example"] = lambda address=address: [address]
        if not (await ask(dialling, "https://models.example/v1")).startswith("not asked") or dialling.dialled:
            through.append(address)
            dialling.dialled.clear()
    assert through == []
    dialling.known["models.example"] = lambda: [*RESOLVED[:7], PUBLIC[0]]
    await ask(dialling, "https://models.example/v1")
    assert set(dialling.dialled) == {PUBLIC[0]}, "what may be dialled is: the spy sees it"


@ASKED
async def test_a_name_that_rebinds_is_judged_each_time_it_is_dialled(dialling: Dialling, ask: Ask) -> None:
    for address in RESOLVED:
        answers = itertools.cycle([[PUBLIC[0]], [address]])
        dialling.known["models.example"] = lambda answers=answers: next(answers)
        for _ in range(3):
            await ask(dialling, "https://models.example/v1")
    assert set(dialling.dialled) == {PUBLIC[0]}


@ASKED
async def test_a_redirect_leads_nowhere(dialling: Dialling, ask: Ask) -> None:
    there = f"http://127.0.0.1:{dialling.server}/v1"
    for form in [*URL_FORMS, *RESOLVED, "evil.example"]:
        host = f"[{form}]" if ":" in form and "[" not in form else form
        dialling.location = (
            f"http://{host}:{dialling.server}/".replace("\r", "").replace("\n", "").encode("ascii", "ignore").decode()
        )
        said = await ask(dialling, there)
        assert "307" in said or "redirect" in said, said
    assert set(dialling.dialled) == {"127.0.0.1"}
    assert len(dialling.dialled) == len([*URL_FORMS, *RESOLVED]) + 1, "once each: nobody followed one"
