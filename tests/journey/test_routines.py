"""Agents that run by themselves, on a laptop: due times, failures, people who are told, two at once. Through the API, the CLI and HTTP."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes.commands import Commands
from fakes.platform import Platform, poll, started

pytestmark = [pytest.mark.journey, pytest.mark.routines, pytest.mark.timeout(240)]

HOST = """
import os, signal, time
from pathlib import Path
from moorage import HostedAgent, step, text_of

def charge(book):
    with book.open("a") as file:
        file.write("charged\\n")
    return book.read_text().count("charged")

def agent(items, ctx):
    text = text_of(items)
    yield f"heard: {text}\\n"
    log = Path("/workspace" if os.access("/workspace", os.W_OK) else ctx.workspace) / "log"
    with log.open("a") as file:
        file.write("run\\n")
    runs = log.read_text().count("run")
    if "dies" in text:
        os.kill(os.getpid(), signal.SIGKILL)
    if "charge" in text:
        yield f"charged {step('charge', charge, log.with_name('charges'))} time(s)\\n"
    if ("first time" in text or "charge" in text) and runs == 1:
        raise ValueError("told to fail")
    if "always" in text:
        raise ValueError("it always fails")
    if "crash" in text and ctx.attempt == 1:
        yield "half "
        os.kill(os.getpid(), signal.SIGKILL)
    if "wait" in text:
        time.sleep(600)  # somebody ends it
    yield f"run {runs}"

HostedAgent(agent=agent).serve()
"""
AGENT = {
    "apiVersion": "moorage.dev/v1alpha1",
    "kind": "HostedAgent",
    "metadata": {"name": "worker"},
    "spec": {"source": {"path": ".", "entrypoint": "host.py"}, "pool": {"min": 2, "max": 16}},
}
KEY = "a-signing-key-of-the-test"


class People:
    """A real HTTP server that keeps what it is told; `answers` are its next statuses, then 200. `refused`: what it did not take."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.told: list[tuple[str, dict[str, str], bytes]] = []
        self.refused: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[int] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = outer.answers.pop(0) if outer.answers else 200
                kept = outer.told if status == 200 else outer.refused
                kept.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self.url = f"http://{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def of(self, routine: str) -> list[dict[str, Any]]:
        """What was told of one routine, in order."""
        found = [json.loads(body) for _, _, body in self.told]
        return [one for one in found if one.get("routine") == routine]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@pytest.fixture(scope="module")
def people() -> Iterator[People]:
    made = People()
    yield made
    made.close()


class Laptop:
    """A folder under `moorage dev`: its routines are written as files, and count at once."""

    def __init__(self, platform: Platform, folder: Path, commands: Commands) -> None:
        self.platform = platform
        self.folder = folder
        self.commands = commands

    def write(self, name: str, **spec: Any) -> None:
        """One routine, with everything that is not said."""
        whole = {"agent": "worker", "input": name, **spec}
        whole = {field: value for field, value in whole.items() if value is not None}
        if not {"schedule", "every", "at"} & set(whole):
            whole["schedule"] = "0 0 1 1 *"  # not while this test runs
        document = {
            "apiVersion": "moorage.dev/v1alpha1",
            "kind": "Routine",
            "metadata": {"name": name},
            "spec": whole,
        }
        before = self.revision(name)
        self.keep(document)
        poll(f"{name} is there as written", lambda: self.revision(name) not in (None, before), within=30)

    def keep(self, document: dict[str, Any]) -> None:
        """In a folder of its own, in place of what stands there."""
        place = self.folder / document["metadata"]["name"]
        place.mkdir(exist_ok=True)
        (place / "routines.yaml").write_text(yaml.safe_dump(document))

    def remove(self, name: str) -> None:
        (self.folder / name / "routines.yaml").unlink()

    def revision(self, name: str) -> str | None:
        found = self.platform.call("/v1/routines")[1]["data"]
        return next((one["revision"] for one in found if one["name"] == name), None)

    def is_there(self, name: str) -> bool:
        return self.revision(name) is not None

    def runs(self, name: str) -> list[dict[str, Any]]:
        return list(self.platform.call(f"/v1/routines/{name}/runs")[1]["data"])

    def ended(self, name: str, count: int = 1, within: float = 60) -> list[dict[str, Any]]:
        """The newest first, once there are so many that have ended."""

        def found() -> list[dict[str, Any]] | None:
            over = [run for run in self.runs(name) if run["outcome"] is not None]
            return over if len(over) >= count else None

        return list(poll(f"{name} ran", found, within=within))

    def run(self, name: str) -> dict[str, Any]:
        """Now."""
        code, found = self.platform.call(f"/v1/routines/{name}/run", method="POST")
        assert code == 202, found
        return dict(found)

    def output(self, response: str, agent: str = "worker") -> Any:
        with self.platform.client(agent) as api:
            return api.responses.retrieve(response)


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory, people: People) -> Iterator[Laptop]:
    folder = tmp_path_factory.mktemp("routines")
    (folder / "worker").mkdir()
    (folder / "worker" / "host.py").write_text(HOST)
    (folder / "worker" / "agent.yaml").write_text(yaml.safe_dump(AGENT))
    env = {"OPS_URL": f"{people.url}/hook/secret-part", "OPS_SIGNING": KEY, "CHAT_URL": f"{people.url}/chat"}
    with started(folder, env=os.environ | env) as platform:
        poll("the agent serves", lambda: any(a["name"] == "worker" for a in platform.agents), within=120)
        made = Laptop(platform, folder, Commands(platform.url, platform.api_key, tmp_path_factory.mktemp("home")))
        begin_what_takes_a_minute(made)
        yield made


def begin_what_takes_a_minute(laptop: Laptop) -> None:
    """Runs beside the tests, since no timeout is shorter; the last of them waits for its end."""
    laptop.write("overdue", input="wait", timeoutMinutes=1)
    laptop.run("overdue")


OPS = {"name": "ops", "url": {"secret": "ops", "key": "url"}, "signing": {"secret": "ops", "key": "signing"}}


def test_a_due_time_is_run_once_and_its_response_is_read_like_any_other(laptop: Laptop) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=4)).replace(microsecond=0)
    laptop.write("once", at=soon.isoformat(), input="due {{ scheduledTime }} {{ lastRun.outcome }}")
    (run,) = laptop.ended("once")
    assert run["outcome"] == "succeeded" and run["scheduled_time"] == soon.isoformat().replace("+00:00", "Z")
    response = laptop.output(run["response_ids"][0])
    assert response.status == "completed" and f"heard: due {run['scheduled_time']} \n" in response.output_text
    shown = laptop.platform.call("/v1/routines/once")[1]
    assert shown["next"] == [] and shown["last"]["id"] == run["id"] and len(laptop.runs("once")) == 1


def test_a_session_lasts_from_run_to_run_and_each_is_told_of_the_one_before(laptop: Laptop) -> None:
    laptop.write("again", input="before: {{ lastRun.outcome }}, {{ lastRun.output }}")
    for number in (1, 2):
        found = laptop.commands.json("routines", "run", "again", "--wait")
        assert found["outcome"] == "succeeded" and f"run {number}" in found["output"]
    assert "before: succeeded, heard: before:" in found["output"]
    laptop.write("alone", session="fresh")
    for _ in range(2):
        assert "run 1" in laptop.commands.json("routines", "run", "alone", "--wait")["output"]


def test_a_crash_is_the_same_turn_and_no_failure(laptop: Laptop) -> None:
    laptop.write("crash")
    found = laptop.commands.json("routines", "run", "crash", "--wait")
    assert found["outcome"] == "succeeded" and found["tries"] == 1 and len(found["response_ids"]) == 1
    attempts = laptop.platform.record("worker", found["response_ids"][0])["attempts"]
    assert len(attempts) == 2, attempts


def test_a_reported_failure_is_tried_again_in_a_new_turn_that_is_told_why(laptop: Laptop) -> None:
    laptop.write("retried", input="first time", onFailure="retry", retries={"backoff": "1s"})
    laptop.run("retried")
    (run,) = laptop.ended("retried")
    assert run["outcome"] == "succeeded" and run["tries"] == 2 and len(set(run["response_ids"])) == 2
    first, second = (laptop.output(each) for each in run["response_ids"])
    assert first.status == "failed" and "told to fail" in second.output_text and "run 2" in second.output_text


def test_what_a_step_of_a_failed_try_has_done_is_not_done_again_by_the_next(laptop: Laptop) -> None:
    laptop.write("charge", onFailure="retry", retries={"limit": 1, "backoff": "1s"})
    laptop.run("charge")
    (run,) = laptop.ended("charge")
    assert (run["outcome"], run["tries"]) == ("succeeded", 2)
    texts = [laptop.output(response).output_text for response in run["response_ids"]]
    assert all("charged 1 time(s)" in text for text in texts), texts


def test_people_are_told_once_that_it_fails_and_once_that_it_runs_again(laptop: Laptop, people: People) -> None:
    people.answers = [500]
    laptop.write("alarm", input="always", alerts=[OPS])
    for number in (1, 2):
        laptop.run("alarm")
        laptop.ended("alarm", number)
    (failed,) = poll("people are told", lambda: people.of("alarm"), within=60)
    assert failed["type"] == "routine.failed" and "it always fails" in failed["error"] and failed["failures"] == 1
    path, headers, body = next(each for each in people.told if b'"alarm"' in each[2])
    assert path == "/hook/secret-part"
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    wanted = base64.b64encode(hmac.new(KEY.encode(), signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{wanted}"
    laptop.write("alarm", input="quiet now", alerts=[OPS])
    laptop.run("alarm")
    laptop.ended("alarm", 3)
    told = poll("and that it runs again", lambda: found if len(found := people.of("alarm")) == 2 else None, within=60)
    assert told[1]["type"] == "routine.resolved"
    shown = json.dumps(laptop.platform.call("/v1/routines/alarm")[1]) + laptop.platform.log.read_text()
    assert "secret-part" not in shown and KEY not in shown


@pytest.mark.parametrize(("kind", "field"), [("slack", "blocks"), ("teams", "attachments")])
def test_chats_are_told_in_their_own_shape(laptop: Laptop, people: People, kind: str, field: str) -> None:
    name = f"loud-{kind}"
    laptop.write(name, input="always", alerts=[{"name": "chat", "type": kind, "url": {"secret": "chat", "key": "url"}}])
    laptop.run(name)

    def told() -> list[dict[str, Any]]:
        return [json.loads(body) for path, _, body in people.told if path == "/chat" and name.encode() in body]

    (found,) = poll("the chat is told", told, within=60)
    assert field in found


def test_nobody_is_told_where_failures_are_skipped(laptop: Laptop, people: People) -> None:
    laptop.write("silent", input="always", onFailure="skip", alerts=[OPS])
    laptop.run("silent")
    (run,) = laptop.ended("silent")
    assert run["outcome"] == "failed" and not people.of("silent")
    assert laptop.platform.call("/v1/routines/silent")[1]["waiting_alerts"] == 0


def test_a_routine_that_always_crashes_is_stopped_beside_others_that_run_and_resumed_by_hand(
    laptop: Laptop, people: People
) -> None:
    laptop.write("beside", every="10s")
    laptop.write("doomed", input="dies", every="10s", stopAfter=2, alerts=[OPS], missedRuns="skip")
    poll("it is stopped", lambda: laptop.platform.call("/v1/routines/doomed")[1]["status"] == "stopped", within=120)
    assert [run["outcome"] for run in laptop.runs("doomed") if run["outcome"] != "skipped"] == ["failed"] * 2
    others = [run for run in laptop.runs("beside") if run["outcome"] is not None]
    assert len(others) >= 2 and {run["outcome"] for run in others} == {"succeeded"}, others
    laptop.commands.run("routines", "suspend", "beside")
    kinds = poll("both are told", lambda: found if len(found := people.of("doomed")) == 2 else None, within=150)
    # In no order: one whose target could not be told is tried again later.
    assert sorted(one["type"] for one in kinds) == ["routine.failed", "routine.stopped"]
    laptop.commands.run("routines", "resume", "doomed")
    assert laptop.platform.call("/v1/routines/doomed")[1]["status"] == "active"
    laptop.commands.run("routines", "suspend", "doomed")
    shown = laptop.platform.call("/v1/routines/doomed")[1]
    assert shown["status"] == "suspended" and shown["next"] == []


@pytest.mark.parametrize(("policy", "outcome"), [("forbid", "skipped"), ("replace", "replaced")])
def test_two_at_once(laptop: Laptop, policy: str, outcome: str) -> None:
    name = f"two-{policy}"
    laptop.write(name, input="wait", every="10s", concurrencyPolicy=policy)
    run = next(one for one in laptop.ended(name, 1, within=60) if one["outcome"] == outcome)
    laptop.commands.run("routines", "suspend", name)
    going = laptop.platform.call(f"/v1/routines/{name}")[1]["running"]
    assert going is not None and going["id"] != run["id"]
    if policy == "replace":
        replaced = run["response_ids"][0]
        poll("the one before is ended", lambda: laptop.output(replaced).status == "cancelled", within=45)
    with laptop.platform.client("worker") as api:
        api.responses.cancel(going["response_ids"][0])
    ended = next(one for one in laptop.ended(name, 2) if one["id"] == going["id"])
    assert ended["outcome"] == "cancelled"


def test_a_due_time_waits_for_the_run_before_it_where_that_is_said(laptop: Laptop) -> None:
    laptop.write("two-queue", input="wait", every="10s", concurrencyPolicy="queue")

    def going(after: float = 0) -> dict[str, Any] | None:
        run = laptop.platform.call("/v1/routines/two-queue")[1]["running"]
        return run if run is not None and run["response_ids"] and slot_of(run) > after else None

    first = poll("the first runs", going)
    poll("a further one is due", lambda: time.time() > slot_of(first) + 11, within=30)
    assert [run["id"] for run in laptop.runs("two-queue")] == [first["id"]], "it neither runs nor is passed over"
    with laptop.platform.client("worker") as api:
        api.responses.cancel(first["response_ids"][0])
        second = poll("then it runs", lambda: going(slot_of(first)), within=60)
        laptop.commands.run("routines", "suspend", "two-queue")
        api.responses.cancel(second["response_ids"][0])
    assert slot_of(second) == slot_of(first) + 10, (first, second)
    ended = {run["id"]: run for run in laptop.ended("two-queue", 2)}
    assert {run["outcome"] for run in ended.values()} == {"cancelled"}
    assert ended[second["id"]]["started_at"] >= ended[first["id"]]["ended_at"]


def slot_of(run: dict[str, Any]) -> float:
    return datetime.fromisoformat(run["scheduled_time"]).timestamp()


def test_a_due_time_that_passed_before_anybody_knew_of_it_is_run_or_named_as_missed(laptop: Laptop) -> None:
    passed = (datetime.now(UTC) - timedelta(minutes=5)).replace(microsecond=0)
    ways: dict[str, tuple[dict[str, Any], str]] = {
        "past-latest": ({"missedRuns": "latest"}, "succeeded"),
        "past-all": ({"missedRuns": "all"}, "succeeded"),
        "past-skip": ({"missedRuns": "skip"}, "missed"),
        "past-late": ({"missedRuns": "all", "startingDeadline": "1m"}, "missed"),
    }
    for name, (spec, _) in ways.items():
        laptop.write(name, at=passed.isoformat(), **spec)
    for name, (_, outcome) in ways.items():
        (run,) = laptop.ended(name)
        assert (run["outcome"], slot_of(run)) == (outcome, passed.timestamp()), run
        assert bool(run["response_ids"]) == (outcome == "succeeded"), run


def test_a_run_by_hand_waits_for_none_and_what_is_taken_away_runs_no_more(laptop: Laptop) -> None:
    laptop.write("long", input="wait")
    run = laptop.run("long")
    code, refused = laptop.platform.call("/v1/routines/long/run", method="POST")
    assert code == 409 and "goes on" in refused["error"]["message"]
    going = poll("its turn runs", lambda: laptop.runs("long")[0]["response_ids"] or None, within=30)
    laptop.remove("long")
    poll("it is gone", lambda: not laptop.is_there("long"), within=30)
    poll("its run is ended", lambda: laptop.output(going[0]).status == "cancelled", within=30)
    assert laptop.platform.call("/v1/routines/long/run", method="POST")[0] == 404 and run["id"]


def test_two_routines_of_one_owner_and_agent_that_are_due_at_once_are_both_run(laptop: Laptop) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=8)).replace(microsecond=0)
    for name in ("twin-one", "twin-two"):
        laptop.write(name, at=soon.isoformat(), input="the same", owner="dev")
    runs = [laptop.ended(name)[0] for name in ("twin-one", "twin-two")]
    assert [run["outcome"] for run in runs] == ["succeeded"] * 2, runs
    assert runs[0]["response_ids"] != runs[1]["response_ids"] and runs[0]["id"] != runs[1]["id"]


def test_an_agent_that_is_not_there_yet_is_waited_for_and_one_that_went_is_a_failure_that_says_so(
    laptop: Laptop,
) -> None:
    due = datetime.now(UTC).replace(microsecond=0)
    spec = {"agent": "later", "at": due.isoformat(), "input": "early"}
    laptop.keep({"apiVersion": AGENT["apiVersion"], "kind": "Routine", "metadata": {"name": "early"}, "spec": spec})
    said = "routine early: spec.agent: there is no agent 'later' yet"
    poll("it is said", lambda: said in laptop.platform.log.read_text(), within=30)
    assert not laptop.is_there("early")
    place = laptop.folder / "later"
    place.mkdir()
    (place / "host.py").write_text(HOST)
    (place / "agent.yaml").write_text(yaml.safe_dump(AGENT | {"metadata": {"name": "later"}}))
    poll("it is known", lambda: laptop.is_there("early"), within=60)
    (run,) = laptop.ended("early", within=90)
    assert (run["outcome"], run["scheduled_time"]) == ("succeeded", due.isoformat().replace("+00:00", "Z"))
    (place / "agent.yaml").unlink()
    poll("its agent is gone", lambda: laptop.platform.call("/v1/agents/later")[0] == 404, within=30)
    laptop.run("early")
    run = laptop.ended("early", 2, within=90)[0]
    assert run["outcome"] == "failed" and "no agent named 'later'" in run["error"]


def test_only_operators_of_the_tenant_see_routines(laptop: Laptop) -> None:
    laptop.write("seen")
    code, made = laptop.platform.call("/v1/keys", method="POST", body={"name": "narrow", "scopes": ["invoke"]})
    assert code == 201
    narrow = made["key"]
    assert laptop.platform.call("/v1/routines/seen", api_key=narrow)[0] == 403
    laptop.run("seen")
    (run,) = laptop.ended("seen")
    place = f"/v1/agents/worker/responses/{run['response_ids'][0]}"
    assert laptop.platform.call(place)[0] == 200 and laptop.platform.call(place, api_key=narrow)[0] == 404
    assert laptop.platform.call("/v1/routines/seen/run", method="POST", api_key=narrow)[0] == 403


def test_a_run_past_its_time_is_ended_and_keeps_what_it_said(laptop: Laptop) -> None:
    (run,) = laptop.ended("overdue", within=150)
    assert run["outcome"] == "timed_out" and "timeoutMinutes" in run["error"], run
    assert run["output"].startswith("heard: wait"), run
    response = laptop.output(run["response_ids"][0])
    assert response.status in ("failed", "incomplete", "cancelled") and response.output_text.startswith("heard: wait")
    last = laptop.platform.call("/v1/routines/overdue")[1]
    assert last["failures"] == 1 and last["running"] is None, last


PERIOD_S = 20
POLICIES = ("skip", "latest", "all")


@pytest.mark.long
@pytest.mark.timeout(400)
def test_due_times_that_passed_while_the_platform_was_down(tmp_path: Path) -> None:
    folder, home = tmp_path / "agents", tmp_path / "home"
    (folder / "worker").mkdir(parents=True)
    (folder / "worker" / "host.py").write_text(HOST)
    (folder / "worker" / "agent.yaml").write_text(yaml.safe_dump(AGENT))
    with started(folder, state=tmp_path / "state") as platform:
        laptop = Laptop(platform, folder, Commands(platform.url, platform.api_key, home))
        poll("the agent serves", lambda: any(a["name"] == "worker" for a in platform.agents), within=120)
        for policy in POLICIES:
            laptop.write(policy, every=f"{PERIOD_S}s", missedRuns=policy, concurrencyPolicy="queue", historyLimit=50)
        for policy in POLICIES:
            laptop.ended(policy, within=60)
    down = time.time()
    # More than the minute within which a due time is not yet late: five of them pass, two of which are late whenever it is up again.
    poll("due times pass", lambda: time.time() > down + 5 * PERIOD_S, within=6 * PERIOD_S)
    with started(folder, state=tmp_path / "state") as platform:
        laptop = Laptop(platform, folder, Commands(platform.url, platform.api_key, home))
        up = time.time()
        seen = {policy: seen_after(laptop, policy, up) for policy in POLICIES}
    accounted(seen, down, up)


def accounted(seen: dict[str, dict[int, str]], down: float, up: float) -> None:
    """By their policies, what became of due times between two instants (Unix seconds). Raises AssertionError."""
    before = {policy: [slot for slot in seen[policy] if down + 1 < slot < up - 60] for policy in POLICIES}
    late = before["all"]
    assert len(late) >= 2 and all(before[policy] == late for policy in POLICIES), seen
    for policy, found in seen.items():
        slots = sorted(found)
        assert slots == list(range(slots[0], slots[-1] + 1, PERIOD_S)), f"{policy}: every due time is accounted for"
        assert set(found.values()) <= {"succeeded", "missed"}, found
    assert [seen["all"][slot] for slot in late] == ["succeeded"] * len(late), "all of them are made up for"
    assert [seen["skip"][slot] for slot in late] == ["missed"] * len(late), "none of them is"
    assert seen["latest"][late[0]] == "missed" and "succeeded" in seen["latest"].values()


def seen_after(laptop: Laptop, name: str, instant: float) -> dict[int, str]:
    """Due times and what became of them, once one after that instant was run."""

    def found() -> dict[int, str] | None:
        runs = [run for run in laptop.runs(name) if run["outcome"] is not None]
        slots = {int(datetime.fromisoformat(run["scheduled_time"]).timestamp()): str(run["outcome"]) for run in runs}
        return dict(sorted(slots.items())) if any(slot > instant for slot in slots) else None

    return dict(poll(f"{name} ran again", found, within=90))
