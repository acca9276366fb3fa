"""Nobody passes for a shim: not the agent at its door, not a caller of the sandbox port, not one with another sandbox's token (T9)."""

from __future__ import annotations

import base64
import json
import socket
from typing import Any

import pytest

from fakes.http_door import HttpDoor
from fakes.prober import descriptors, ledger, sandbox_port
from moorage_api import names, tokens

pytestmark = pytest.mark.isolation


def shim_status(path: str, method: str, target: str, secret: str | None) -> int:
    """The status of one call at a shim's socket."""
    lines = [f"{method} {target} HTTP/1.1", "Host: shim", "Content-Length: 2", "Connection: close"]
    lines += [] if secret is None else [f"x-moorage-secret: {secret}"]
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(path)
        sock.sendall("\r\n".join([*lines, "", "{}"]).encode())
        return int(sock.recv(4096).split()[1])


def descriptor(world: Any, session: str) -> dict[str, str]:
    """The sandbox of a session of the hostile agent; the session is made if there is none."""
    world.prober.tell(session, "result = 1")
    key = names.session_key("dev", names.partition("dev", "prober", "dev", session))
    return next(one for one in descriptors(world.platform) if one["session"] == key)


def token(world: Any, one: dict[str, str], **other: str) -> str:
    """The token of a sandbox, as only the provider can sign it."""
    identity = tokens.Identity(
        **{name: other.get(name, one[name]) for name in ("sandbox", "tenant", "agent", "revision", "volume")}
    )
    return tokens.sign(identity, (world.platform.state / "token_key").read_text().strip())


def announcement(one: dict[str, str], named: str, **other: Any) -> dict[str, Any]:
    """What its shim says of a bound sandbox."""
    key = names.session_key("dev", names.partition("dev", "prober", "dev", named))
    said = {"sandbox": one["sandbox"], "session": key, "epoch": 2**52, "state": "bound", "session_id": named}
    return {**said, "user": "dev", "endpoint": "http://127.0.0.1:9/", "secret": "0" * 64, **other}


def announce(world: Any, bearer: str | None, body: Any) -> tuple[int, Any]:
    """One call of the sandbox port."""
    door = HttpDoor(sandbox_port(world.platform), bearer)
    try:
        answer = door.ask("POST", "/sandbox/v1/announce", body)
        return answer.status, answer.body
    finally:
        door.close()


def test_the_door_of_the_shim_cannot_be_taken(told: Any) -> None:
    seen = told(
        "hostile-shim-1",
        """
        import errno, os, socket
        result = {}
        port = int(os.environ["HTTPS_PROXY"].rpartition(":")[2])
        for host in ("127.0.0.1", "0.0.0.0"):
            for option in ("SO_REUSEADDR", "SO_REUSEPORT"):
                with socket.socket() as sock:
                    sock.setsockopt(socket.SOL_SOCKET, getattr(socket, option), 1)
                    try:
                        sock.bind((host, port))
                        sock.listen()
                        result[host + option] = "taken"
                    except OSError as fault:
                        result[host + option] = errno.errorcode[fault.errno]
        """,
    )
    assert set(seen.values()) == {"EADDRINUSE"}, seen


def test_a_shims_socket_answers_only_to_its_secret(world: Any) -> None:
    """The agent cannot even see the socket (test_reach.py); here its file is called with all that an agent could make up."""
    one, other = descriptor(world, "hostile-shim-1"), descriptor(world, "hostile-shim-2")
    calls = [("POST", f"/shim/{verb}") for verb in ("bind", "start", "attach", "stop", "drain")]
    for method, path in [*calls, ("GET", "/shim/status"), ("POST", "/relay/invocations")]:
        for secret in (None, "", "0" * 64, other["secret"], one["secret"][:-1]):
            assert shim_status(one["endpoint"].removeprefix("unix:"), method, path, secret) == 401, (path, secret)


def test_the_sandbox_port_takes_no_word_without_a_token_of_its_own(world: Any) -> None:
    one = descriptor(world, "hostile-shim-1")
    good, said = token(world, one), announcement(one, "hostile-shim-1")
    body, _, mac = good.partition(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    forged = base64.urlsafe_b64encode(json.dumps(claims | {"tenant": "rival"}).encode()).decode().rstrip("=")
    wrong_key = tokens.sign(tokens.Identity(**claims), "00" * 32)
    for bearer in (
        None,
        "",
        "x",
        good[:-2],
        f"{forged}.{mac}",
        f"{body}.",
        f"{body}.{mac}.",
        wrong_key,
        body,
        "." + mac,
    ):
        assert announce(world, bearer, said)[0] == 401, bearer
    assert announce(world, world.platform.api_key, said)[0] == 401, "a caller's key is no sandbox's token"
    door = HttpDoor(world.platform.url, good)
    assert door.ask("GET", "/v1/agents").status == 401, "a sandbox's token is no caller's key"
    door.close()
    assert announce(world, good, {"sandbox": one["sandbox"]})[0] == 400
    port = HttpDoor(sandbox_port(world.platform), good)
    for path in ("/sandbox/v1/journal", "/v1/agents", "/sandbox/v1/models", "/metrics"):
        assert port.ask("POST", path, {}).status == 404
    assert port.ask("POST", "/sandbox/v1/announce", raw=b"x" * 20_000).status == 413
    port.close()


def test_a_sandbox_speaks_for_itself_only(world: Any) -> None:
    one, other = descriptor(world, "hostile-shim-1"), descriptor(world, "hostile-shim-2")
    mine = token(world, one)
    assert announce(world, mine, announcement(other, "hostile-shim-2"))[0] == 403, "another sandbox's name"
    rivals = announcement(one, "hostile-shim-1", session=names.session_key("rival", "0" * 16))
    assert announce(world, mine, rivals)[0] == 403, "another tenant's session"
    users = announcement(one, "hostile-shim-1", user="somebody")
    assert announce(world, mine, users)[0] == 403, "a session that is not that user's"


def test_a_sandbox_does_not_take_over_another_session_of_its_agent(world: Any) -> None:
    """Even a shim gone bad, its token whole and its epoch the highest, keeps to the session it was given."""
    one, other = descriptor(world, "hostile-shim-1"), descriptor(world, "hostile-shim-2")
    status, answer = announce(world, token(world, one), announcement(one, "hostile-shim-2"))
    assert status == 403 or answer["epoch"] > 2**52, "refused, or told that it is not wanted"
    with ledger(world.platform) as client:
        held: Any = client.hgetall(f"s:{other['session']}")
    assert (held["sandbox"], held["endpoint"]) == (other["sandbox"], other["endpoint"])
    assert world.prober.tell("hostile-shim-2", "import os; result = os.environ['MOORAGE_SANDBOX']") == other["sandbox"]
