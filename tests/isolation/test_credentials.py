"""No credential of the platform is anywhere an agent can look, and none lands where people read (T8, S7)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fakes.prober import SEARCH_FILES, SEARCH_MEMORY, SEARCH_PROC, Prober, descriptors, outcome, search
from moorage_api import tokens

pytestmark = pytest.mark.isolation

# As in conftest.py.
CANARIES = ("canary-env-7a41c0ffee", "canary-state-0ddba11")
MODEL, TOOL = "canary-model/5e11ab1e-0042", "canary-tool/ba5eba11-0017"


def secrets_of(world: Any) -> dict[str, str]:
    """Every secret of this platform by what it is."""
    state, key = world.platform.state, world.platform.api_key
    token_key = (state / "token_key").read_text().strip()
    found = {"environment": CANARIES[0], "state folder": CANARIES[1], "API key": key.rpartition("_")[2]}
    found |= {"token key": token_key, "model key": MODEL, "tool credential": TOOL}
    for one in descriptors(world.platform):
        identity = tokens.Identity(*(one[name] for name in ("sandbox", "tenant", "agent", "revision", "volume")))
        found[f"bind secret of {one['sandbox']}"] = one["secret"]
        found[f"token of {one['sandbox']}"] = tokens.sign(identity, token_key).partition(".")[2]
    return found


def test_the_search_finds_what_is_there(world: Any) -> None:
    prober: Prober = world.prober
    prober.tell("searching-1", "import os; kept = 'planted-' + 'needle-1'; os.environ['KEPT'] = kept; os.kept = kept")
    prober.tell("searching-1", "open('/workspace/f', 'w').write('planted-' + 'needle-1')")
    for part in (SEARCH_FILES, SEARCH_PROC, SEARCH_MEMORY):
        assert prober.tell("searching-1", search(["planted-needle-1"], part)) != [], part


@pytest.mark.parametrize("part", [SEARCH_FILES, SEARCH_PROC, SEARCH_MEMORY], ids=["files", "processes", "memory"])
def test_no_credential_is_found_inside(world: Any, part: str) -> None:
    secrets = secrets_of(world)
    assert len(secrets) >= 8
    names = list(secrets)
    found = world.prober.tell("searching-2", search(list(secrets.values()), part))
    assert [(place, names[index]) for place, index in found] == []


def test_no_credential_is_found_while_a_turn_runs(world: Any) -> None:
    """A turn brings request headers, history and a body into the agent: none of the caller's key comes along."""
    secrets = secrets_of(world)
    code = search(list(secrets.values()), SEARCH_PROC, SEARCH_MEMORY)
    assert outcome(world.prober.turn("searching-3", code)) == []


def test_a_relayed_call_brings_no_credential_of_its_caller(world: Any) -> None:
    secret = world.platform.api_key
    headers = {"api-key": secret, "cookie": f"session={secret}", "proxy-authorization": f"Bearer {secret}"}
    code = search([secret], SEARCH_PROC, SEARCH_MEMORY).encode()
    path = "/v1/agents/prober/invocations/thread?agent_session_id=searching-4"
    answer = world.door.ask("POST", path, raw=code, headers=headers)
    assert answer.body == {"result": []}


def test_no_credential_lies_in_what_the_platform_keeps_or_prints(world: Any) -> None:
    assert world.door.ask("GET", "/v1/agents/prober/logs?tail=2000").status == 200
    secrets = secrets_of(world)
    looked = 0
    for folder in ("objects", "logs", "manifests", "volumes", "sources"):
        for path in (world.platform.state / folder).rglob("*"):
            if path.is_file() and not path.is_symlink():
                looked += 1
                data = path.read_bytes()
                for name, value in secrets.items():
                    assert value.encode() not in data, (name, path)
    assert looked > 10
    printed = Path(world.platform.log).read_text()
    for name, value in secrets.items():
        if name != "API key":  # shown once, on purpose
            assert value not in printed, name
