"""Routines by invocations, on a laptop: a real agent answers them, dies within them, outlasts its time. Through the API and the CLI."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from fakes.commands import Commands
from fakes.platform import Platform, poll, started
from journey.test_routines import OPS, People
from moorage import Misuse, Routine
from moorage_api.ledger import keys

pytestmark = [pytest.mark.journey, pytest.mark.routines, pytest.mark.timeout(240)]

HOST = """
import json, os, signal, time
from pathlib import Path
from moorage import HostedAgent, Response

def invocations(request):
    asked = request.json()
    book = Path(request.workspace) / "book"
    with book.open("a") as file:
        file.write(asked["do"] + "\\n")
    times = book.read_text().splitlines().count(asked["do"])
    print(f"asked to {asked['do']}", flush=True)
    headers = request.headers
    if asked["do"] == "wait" or (asked["do"] == "first waits" and times == 1):
        def slowly():
            yield b"half "
            time.sleep(600)  # somebody ends it
        return slowly()
    if asked["do"] == "die" or (asked["do"] == "first dies" and times == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if asked["do"] == "refuse" or (asked["do"] == "first refuses" and times == 1):
        return Response(b"not like this", status=409)
    said = {name: headers.get(name, "") for name in (
        "x-client-routine", "x-client-routine-run", "x-client-routine-try", "x-client-routine-failed", "x-agent-user-id",
        "x-agent-invocation-id", "x-moorage-session", "x-moorage-run-seconds", "content-type")}
    return Response(json.dumps({"times": times, "asked": asked, "headers": said}).encode(), status=201)

HostedAgent(invocations=invocations).serve()
"""
TALKER = """
from moorage import HostedAgent
HostedAgent(agent=lambda items, ctx: "hello").serve()
"""


def agent(name: str, protocol: str) -> dict[str, Any]:
    return {
        "apiVersion": "moorage.dev/v1alpha1",
        "kind": "HostedAgent",
        "metadata": {"name": name},
        "spec": {
            "source": {"path": ".", "entrypoint": "host.py"},
            "protocols": [protocol],
            "pool": {"min": 3, "max": 16},
        },
    }


class Laptop:
    """A platform under `moorage dev`, to which routines come through the API."""

    def __init__(self, platform: Platform, commands: Commands) -> None:
        self.platform = platform
        self.commands = commands

    def apply(self, name: str, do: str, **spec: Any) -> None:
        Routine(**_arguments(name, do, spec)).deploy(url=self.platform.url, key=self.platform.api_key)

    def run(self, name: str) -> str:
        """Now; the run's id."""
        code, found = self.platform.call(f"/v1/routines/{name}/run", method="POST")
        assert code == 202, found
        return str(found["id"])

    def runs(self, name: str) -> list[dict[str, Any]]:
        """The newest first."""
        return list(self.platform.call(f"/v1/routines/{name}/runs")[1]["data"])

    def ended(self, name: str, outcome: str = "", within: float = 60) -> dict[str, Any]:
        """The newest run that has ended, with that outcome where one is given."""

        def found() -> dict[str, Any] | None:
            over = [run for run in self.runs(name) if run["outcome"] and outcome in ("", run["outcome"])]
            return over[0] if over else None

        return dict(poll(f"{name} ended {outcome}", found, within=within))

    def book(self, what: str) -> list[str]:
        """What the agents of all sessions were asked to do, where it was that."""
        lines = [line for path in self.platform.workspace_files("book") for line in path.read_text().splitlines()]
        return [line for line in lines if line == what]

    def asked(self, name: str, what: str, times: int = 1) -> None:
        """Waits until an agent was asked that so often."""
        poll(f"{name} asked to {what}", lambda: len(self.book(what)) >= times, within=60)

    def kept(self) -> list[Path]:
        """What is kept of invocations."""
        return sorted((self.platform.objects() / "routine-invocations").rglob("inv_*"))


def _arguments(name: str, do: str, spec: dict[str, Any]) -> dict[str, Any]:
    whole: dict[str, Any] = {"name": name, "agent": "worker", "protocol": "invocations", "body": {"do": do}} | spec
    return whole if "every" in whole else whole | {"schedule": "0 0 1 1 *"}  # not while this test runs


@pytest.fixture(scope="module")
def people() -> Iterator[People]:
    made = People()
    yield made
    made.close()


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory, people: People) -> Iterator[Laptop]:
    folder = tmp_path_factory.mktemp("invoked")
    for name, source, protocol in (("worker", HOST, "invocations"), ("talker", TALKER, "responses")):
        (folder / name).mkdir()
        (folder / name / "host.py").write_text(source)
        (folder / name / "agent.yaml").write_text(yaml.safe_dump(agent(name, protocol)))
    env = {"OPS_URL": f"{people.url}/hook", "OPS_SIGNING": "a-signing-key-of-the-test"}
    with started(folder, env=os.environ | env) as platform:
        poll("the agents serve", lambda: {"worker", "talker"} <= {a["name"] for a in platform.agents}, within=120)
        yield Laptop(platform, Commands(platform.url, platform.api_key, tmp_path_factory.mktemp("home")))


def test_a_run_is_one_request_with_its_body_filled_and_what_names_it(laptop: Laptop) -> None:
    laptop.apply("told", "tell", body={"do": "tell", "deep": [{"since": "{{ lastRun.outcome }}!", "n": 3}]})
    first, second = (laptop.commands.json("routines", "run", "told", "--wait") for _ in range(2))
    assert (first["outcome"], second["outcome"]) == ("succeeded", "succeeded"), (first, second)
    said = [json.loads(run["output"]) for run in (first, second)]
    assert [one["asked"]["deep"] for one in said] == [[{"since": "!", "n": 3}], [{"since": "succeeded!", "n": 3}]]
    assert [one["times"] for one in said] == [1, 2], "one session for all runs"
    headers = said[1]["headers"]
    assert headers["x-client-routine"] == "told" and headers["x-client-routine-run"] == second["id"]
    assert headers["x-client-routine-try"] == "1" and headers["x-client-routine-failed"] == ""
    assert (headers["content-type"], headers["x-moorage-run-seconds"]) == ("application/json", "")
    assert headers["x-agent-user-id"] == "routine:told" and headers["x-moorage-session"] == "routine-told"
    assert second["invocation_ids"] == [headers["x-agent-invocation-id"]] and second["response_ids"] == []
    assert laptop.platform.call("/v1/routines/told")[1]["protocol"] == "invocations"
    laptop.apply("alone", "be alone", session="fresh")
    outputs = [laptop.commands.json("routines", "run", "alone", "--wait")["output"] for _ in range(2)]
    assert [json.loads(output)["times"] for output in outputs] == [1, 1]


def test_people_see_a_run_and_what_it_answered(laptop: Laptop) -> None:
    laptop.apply("seen", "be seen", owner="dev")
    lines = laptop.commands.run("routines", "run", "seen", "--wait").out.splitlines()
    assert '{"do": "be seen"}' in lines[0] and lines[1].startswith("succeeded, due ")
    (run,) = laptop.runs("seen")
    (invocation,) = run["invocation_ids"]
    assert lines[1].endswith(invocation)
    assert invocation in laptop.commands.run("routines", "history", "seen").out
    logs = laptop.commands.run("routines", "logs", "seen", invocation)
    assert logs.out.splitlines() == lines and "stdout: asked to be seen" in logs.err
    assert f"last     succeeded, due {run['scheduled_time']}" in laptop.commands.run("routines", "show", "seen").out


def test_a_status_other_than_2xx_is_a_failure_and_a_further_try_is_told_of_it(laptop: Laptop, people: People) -> None:
    alerts = [OPS]
    laptop.apply("refused", "refuse", alerts=alerts)
    laptop.run("refused")
    run = laptop.ended("refused")
    assert (run["outcome"], run["error"], run["output"]) == (
        "failed",
        "it answered 409: not like this",
        "not like this",
    )
    (told,) = poll("people are told", lambda: people.of("refused"), within=60)
    assert told["invocation_id"] == run["invocation_ids"][0] and told["response_id"] is None and told["trace_id"]
    laptop.apply("again", "first refuses", on_failure="retry", retries={"limit": 1, "backoff": "1s"})
    laptop.run("again")
    run = laptop.ended("again")
    assert (run["outcome"], run["tries"], len(set(run["invocation_ids"]))) == ("succeeded", 2, 2), run
    headers = json.loads(run["output"])["headers"]
    assert headers["x-client-routine-try"] == "2" and headers["x-client-routine-failed"].startswith("it answered 409:")


@pytest.mark.parametrize("victim", ["agent", "sandbox"])
def test_what_dies_within_a_run_is_a_failure_and_is_not_sent_again_by_itself(laptop: Laptop, victim: str) -> None:
    name, do = f"cut-{victim}", "die" if victim == "agent" else "wait"
    body = {"do": do, "mark": name}
    laptop.apply(name, do, body=body, owner="dev")
    before = len(laptop.book(do))
    laptop.run(name)
    laptop.asked(name, do, before + 1)
    if victim == "sandbox":
        poll("its sandbox is known", lambda: laptop.platform.pids("worker", f"routine-{name}"), within=30)
        laptop.platform.kill_sandbox("worker", f"routine-{name}")
    run = laptop.ended(name)
    assert run["outcome"] == "failed" and run["error"].startswith("interrupted: nobody knows"), run
    assert (run["tries"], len(laptop.book(do))) == (1, before + 1), "it is sent once"


def test_with_retry_what_died_is_tried_again(laptop: Laptop) -> None:
    laptop.apply("risen", "first dies", on_failure="retry", retries={"limit": 1, "backoff": "1s"})
    laptop.run("risen")
    run = laptop.ended("risen")
    assert (run["outcome"], run["tries"]) == ("succeeded", 2), run
    assert "interrupted" in json.loads(run["output"])["headers"]["x-client-routine-failed"]
    assert len(laptop.book("first dies")) == 2


@pytest.mark.long
@pytest.mark.parametrize(("policy", "outcome"), [("forbid", "skipped"), ("replace", "replaced")])
def test_two_at_once(laptop: Laptop, policy: str, outcome: str) -> None:
    name = f"two-{policy}"
    laptop.apply(name, "wait", every="10s", concurrency_policy=policy)
    run = laptop.ended(name, outcome)
    laptop.commands.run("routines", "suspend", name)
    going = laptop.platform.call(f"/v1/routines/{name}")[1]["running"]
    assert going is not None and going["id"] != run["id"]
    if policy == "replace":
        before = run["invocation_ids"][0]
        poll(
            "nothing is left of the one before",
            lambda: not any(before in str(path) for path in laptop.kept()),
            within=60,
        )
    laptop.commands.run("routines", "delete", name)
    mine = poll("its invocation is known", lambda: going["invocation_ids"] or None, within=1)[0]
    poll("what runs is ended", lambda: not any(mine in str(path) for path in laptop.kept()), within=60)


def test_a_run_is_cancelled_by_hand_and_keeps_what_it_said(laptop: Laptop) -> None:
    laptop.apply("dropped", "wait", on_failure="retry")
    before = len(laptop.book("wait"))
    assert "can be cancelled" in laptop.commands.run("routines", "cancel", "dropped", fails=True).err
    laptop.run("dropped")
    laptop.asked("dropped", "wait", before + 1)
    poll("its invocation is known", lambda: laptop.runs("dropped")[0]["invocation_ids"])
    assert "is being ended" in laptop.commands.run("routines", "cancel", "dropped").out
    run = laptop.ended("dropped")
    assert (run["outcome"], run["tries"], run["output"]) == ("cancelled", 1, "half "), run
    # The history is written first.
    poll("it goes on no more", lambda: laptop.platform.call("/v1/routines/dropped")[1]["running"] is None)
    assert laptop.platform.call("/v1/routines/dropped")[1]["failures"] == 0


def test_an_agent_that_does_not_serve_invocations_is_said(laptop: Laptop) -> None:
    for name, spec, field in (
        ("wrong", {"agent": "talker"}, "spec.protocol"),
        ("wrong", {"protocol": "responses", "body": None, "input": "x"}, "spec.protocol"),
        ("wrong", {"input": "x"}, "spec"),
        ("wrong", {"body": None}, "spec"),
        ("wrong", {"body": {"since": "{{ nobody }}"}}, "spec.body"),
    ):
        made = Routine(**_arguments(name, "x", spec))
        code, said = laptop.platform.call("/v1/routines/wrong", method="PUT", body=made.manifest)
        assert (code, said["error"]["param"]) == (422, field), said
    with pytest.raises(Misuse, match="belongs|needs body"):
        laptop.apply("wrong", "x", body=None)


@pytest.mark.long
def test_a_gateway_that_dies_within_a_run_leaves_it_interrupted_and_a_further_try_is_made(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOORAGE_GATEWAY_ID", "mortal")
    gateway = laptop.platform.start_gateway()
    try:
        run = held_by(laptop, "mortal-")
        asked = len(laptop.book("first waits"))
    finally:
        gateway.kill()
    ended = laptop.ended(run["name"], within=90)
    assert (ended["id"], ended["outcome"], ended["tries"]) == (run["id"], "succeeded", 2), ended
    assert "interrupted" in json.loads(ended["output"])["headers"]["x-client-routine-failed"]
    assert len(laptop.book("first waits")) == asked + 1


def held_by(laptop: Laptop, who: str) -> dict[str, Any]:
    """A run whose answer that gateway waits for; any of them may take it."""
    with redis.Redis.from_url(laptop.platform.redis_url()) as ledger:
        for number in range(12):
            name = f"orphan-{number}"
            before = len(laptop.book("first waits"))
            laptop.apply(name, "first waits", on_failure="retry", retries={"limit": 1, "backoff": "1s"})
            run = laptop.run(name)
            laptop.asked(name, "first waits", before + 1)
            (tried,) = poll("its invocation is known", lambda name=name: laptop.runs(name)[0]["invocation_ids"])  # type: ignore[misc]
            if (ledger.hget(keys.run_lease(tried), "who") or b"").startswith(who.encode()):
                return {"name": name, "id": run}
            laptop.commands.run("routines", "delete", name)
    raise AssertionError(f"{who} took none of twelve runs")


@pytest.mark.long
def test_a_run_past_its_time_is_ended_with_its_agent_and_keeps_what_it_said(laptop: Laptop) -> None:
    laptop.apply("overdue", "wait", timeout_minutes=1, owner="dev")
    laptop.run("overdue")
    run = laptop.ended("overdue", within=150)
    assert run["outcome"] == "timed_out" and "timeoutMinutes" in run["error"] and run["output"] == "half ", run
    lines = "/v1/sessions/routine-overdue/logs?agent=worker&tail=100"
    poll("its agent has ended", lambda: b"the agent process" in laptop.platform.call(lines)[1], within=30)
    shown = laptop.platform.call("/v1/routines/overdue")[1]
    assert shown["failures"] == 1 and shown["running"] is None, shown
