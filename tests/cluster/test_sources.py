"""Agents from a git source and from a bundle, by `kubectl apply` and `moorage up`: built in the cluster, run from what was built."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.made import hosted_agents
from cluster.node import plan
from cluster.node.node import Node
from cluster.operated import Operated, operated
from cluster.reach import NODE
from cluster.reviewed import ASKED, PLANTED
from fakes.git_server import GitServer, git_server
from fakes.platform import poll
from moorage_operator import marks
from tree import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
BUILD_SECONDS = 200

AGENT = """
import json, os, sys
from pathlib import Path
import parrot
from moorage import HostedAgent, text_of

def agent(items, ctx):
    if text_of(items) == "look":
        try:
            Path("/app/new").write_text("x")
            written = True
        except OSError:
            written = False
        yield json.dumps({"parrot": parrot.VERSION, "here": os.getcwd(), "python": sys.prefix, "written": written,
                          "files": sorted(os.listdir("/app")), "platform": "dulwich" in str(sys.path)})
    else:
        yield f"{WORD} {text_of(items)}"

WORD = Path("word.txt").read_text().strip()
HostedAgent(agent=agent).serve()
"""

REAL = (
    "None added, 1 dropped",
    "- **dropped** `sniffio`",
    "`httpx.Client.__init__`: parameter `proxies` was removed",
    "`httpx.get`: parameter `cert` was removed",
)
FOREIGN = """
import json, os
from http.server import BaseHTTPRequestHandler, HTTPServer

class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self._say({"status": "Healthy"} if self.path == READY else {}, 200 if self.path == READY else 404)
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self._say({"path": self.path, "said": json.loads(body or b"{}"), "port": os.environ["PORT"]}, 200)
    def _say(self, found, status):
        data = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *_):
        pass

READY = {ready!r}
HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Server).serve_forever()
"""


def parrot(version: str) -> tuple[str, bytes]:
    """A wheel of one module, by name: a requirement that no index has."""
    out, info = io.BytesIO(), f"parrot-{version}.dist-info"
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("parrot.py", f"VERSION = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: parrot\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"parrot.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return f"parrot-{version}-py3-none-any.whl", out.getvalue()


def program(word: str, version: str) -> dict[str, str | bytes]:
    name, wheel = parrot(version)
    return {"host.py": AGENT, "word.txt": f"{word}\n", name: wheel, "requirements.txt": f"./{name}\n"}


@pytest.fixture(scope="module")
def git(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    with git_server(tmp_path_factory.mktemp("repositories"), plan.HOST, "git.moorage.test") as served:
        yield served


@pytest.fixture(scope="module")
def world(
    node: Node, git: GitServer, agent_image: str, sandbox_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operated]:
    hosted_agents(node)
    folder = tmp_path_factory.mktemp("sources")
    with operated(
        node, agent_image, sandbox_image, folder, "moorage-sources", names={git.authority: plan.HOST}
    ) as made:
        yield made


def jobs(world: Operated, agent: str) -> list[dict[str, Any]]:
    return list(json.loads(world.kubectl("get", "jobs", "-l", f"{marks.AGENT}={agent}", "-o", "json"))["items"])


def refused(world: Operated, agent: str) -> bool:
    return bool(world.condition(agent).get("status") == "False")


def told(world: Operated, agent: str) -> str:
    """What there is to say when it did not come up."""
    shown = world.kubectl("get", "hostedagents,jobs,pods", "-o", "wide")
    return f"{shown}\n{[one.get('status') for one in jobs(world, agent)]}"


def test_a_git_source_is_resolved_built_and_run(world: Operated, git: GitServer) -> None:
    commit = git.commit("one", {f"agents/one/{name}": text for name, text in program("first", "1.0").items()})
    source = {"git": {"url": git.url("one"), "ref": "main", "path": "agents/one"}}
    world.apply("one", source=source)
    world.until_ready("one", within=BUILD_SECONDS)
    status = world.agent("one")["status"]
    assert status["source"] == commit
    assert commit in world.condition("one", "SourceResolved")["message"]
    assert world.ask("one", "hello", "one-session-1").output_text == "first hello"
    seen = json.loads(world.ask("one", "look", "one-session-1").output_text)
    assert (seen["parrot"], seen["here"], seen["python"], seen["written"]) == ("1.0", "/app", "/opt/agent", False)
    assert not seen["platform"] and "agents" not in seen["files"] and "host.py" in seen["files"]

    later = git.commit("one", {"agents/one/word.txt": "second\n"})
    world.apply("one", source=source, env=[{"name": "MODE", "value": "other"}])
    world.until_ready("one")
    assert world.agent("one")["status"]["source"] == commit, "a ref is resolved once for a source"
    (job,) = jobs(world, "one")
    world.kubectl("delete", "job", job["metadata"]["name"], "--wait=true")
    poll("it is resolved anew", lambda: world.agent("one")["status"].get("source") == later, within=BUILD_SECONDS)
    world.until_ready("one")
    assert world.ask("one", "hello", "one-session-2").output_text == "second hello"

    world.kubectl("delete", "hostedagent", "one", "--wait=true")
    poll("its build went with it", lambda: not jobs(world, "one"), within=60)


def test_the_review_agent_reviews_in_its_pod(world: Operated, git: GitServer) -> None:
    """`examples/review-agent/agent.yaml` from git. Without the index it reviews the sample, whose facts are planted."""
    folder = ROOT / "examples" / "review-agent"
    tracked = [path for path in folder.rglob("*") if path.suffix in {".py", ".txt", ".yaml"}]
    git.commit("review", {f"agents/review/{path.relative_to(folder)}": path.read_bytes() for path in tracked})
    written = yaml.safe_load((folder / "agent.yaml").read_text())["spec"]
    source = {key: value for key, value in written["source"].items() if key != "path"}
    source["git"] = {"url": git.url("review"), "path": "agents/review"}
    world.apply("review-agent", **{**written, "source": source})
    world.apply("review-without-index", **{**written, "source": source, "egress": []})
    for name, facts in (("review-agent", REAL), ("review-without-index", PLANTED)):
        world.until_ready(name, within=BUILD_SECONDS)
        answer = world.ask(name, ASKED, f"{name}-session", timeout=300)
        told = answer.output_text
        missing = [fact for fact in facts if fact not in told]
        assert not missing, f"{missing}\n{told}\n{answer.error}\n{world.logs()}"
    for name in ("review-agent", "review-without-index"):
        world.kubectl("delete", "hostedagent", name, "--wait=true")


def test_a_folder_is_uploaded_and_runs(world: Operated, tmp_path: Path) -> None:
    for name, content in program("folder", "2.0").items():
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    manifest = {
        "apiVersion": "moorage.dev/v1alpha1", "kind": "HostedAgent", "metadata": {"name": "folder"},
        "spec": {"source": {"path": "."}, "pool": {"min": 1, "max": 2}, "workspace": {"size": "32Mi"}},
    }  # fmt: skip
    (tmp_path / "agent.yaml").write_text(json.dumps(manifest))

    def up() -> dict[str, Any]:
        command = [
            str(Path(sys.executable).with_name("moorage")),
            "up",
            str(tmp_path),
            "--url",
            world.desk.url,
            "--json",
        ]
        env = {**os.environ, "MOORAGE_API_KEY": world.desk.key}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{told(world, 'folder')}\n{world.logs()}"
        return dict(json.loads(done.stdout)["agents"][0])

    first = up()
    assert world.ask("folder", "hello", "folder-session-1").output_text == "folder hello"
    assert first["revision"] == world.agent("folder")["status"]["revision"]
    (tmp_path / "word.txt").write_text("changed\n")
    assert up()["revision"] != first["revision"], "it waits for what was uploaded, not for what ran before"
    assert world.ask("folder", "hello", "folder-session-2").output_text == "changed hello"
    assert len(jobs(world, "folder")) == 1


def test_what_cannot_be_built_says_why(world: Operated, git: GitServer) -> None:
    git.commit("bad", {"host.py": "print()\n", "requirements.txt": "./nothing-1.0-py3-none-any.whl\n"}, tag="v1")
    wrong = {
        "unknown-ref": ({"url": git.url("bad"), "ref": "nowhere"}, "no branch or tag nowhere"),
        "no-folder": ({"url": git.url("bad"), "path": "absent"}, "no folder absent"),
        "no-repository": ({"url": git.url("absent")}, "no repository"),
        "unresolved": ({"url": git.url("bad"), "ref": "v1"}, "nothing-1.0"),
    }
    for name, (source, _) in wrong.items():
        world.apply(name, source={"git": source})
    for name, (_, said) in wrong.items():
        try:
            poll(f"{name} says so", partial(refused, world, name), within=BUILD_SECONDS)
        except AssertionError as fault:
            raise AssertionError(f"{fault}\n{told(world, name)}\n{world.logs()}") from fault
        found = world.condition(name, "SourceResolved")
        assert said in found["message"] and "kubectl delete job" in found["message"], (name, found)
        assert found["reason"] == ("EnvironmentFailed" if name == "unresolved" else "SourceRefused")
    world.apply("unresolved", image=world.image)
    poll("its build is removed", lambda: not jobs(world, "unresolved"), within=30)


@pytest.mark.parametrize(
    ("contract", "ready", "port"), [("foundry", "/readiness", "8088"), ("agentcore", "/ping", "8080")]
)
def test_a_foreign_server_is_started_and_called(
    world: Operated, git: GitServer, contract: str, ready: str, port: str
) -> None:
    git.commit(contract, {"main.py": FOREIGN.replace("{ready!r}", repr(ready))})
    world.apply(contract, source={"git": {"url": git.url(contract)}}, contract=contract, protocols=["invocations"])
    world.until_ready(contract, within=BUILD_SECONDS)
    answer = world.client.post(
        f"/agents/{contract}/invocations", body={"say": "x"}, cast_to=object,
        options={"headers": {"x-agent-session-id": f"{contract}-session-1"}},
    )  # fmt: skip
    assert answer == {"path": "/invocations", "said": {"say": "x"}, "port": port}


def test_a_build_reaches_only_the_gateway(world: Operated, git: GitServer) -> None:
    """By its policy; what it reaches through the gateway's proxy is tried with the refused sources above."""
    git.commit("caged", {"host.py": "print()\n", "setup.py": CAGED, "requirements.txt": ".\n"})
    world.apply("caged", source={"git": {"url": git.url("caged")}})
    poll("it says what it saw", lambda: "SEEN" in world.condition("caged").get("message", ""), within=BUILD_SECONDS)
    message = world.condition("caged")["message"]
    seen = json.loads(message.partition("SEEN ")[2].partition(" NEES")[0])
    gateway = world.desk.announce.removeprefix("http://")
    assert seen["reach"] == {gateway: True, **dict.fromkeys(NODE, False)}, message
    assert seen["secrets"] == [], message


CAGED = f"""
import json, os, socket
def reached(where):
    host, _, port = where.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
        return True
    except OSError:
        return False
gateway = json.load(open("/etc/moorage/build.json"))["gateway"].removeprefix("http://")
secrets = [p for p in ("/var/run/secrets/kubernetes.io/serviceaccount/token",) if os.path.exists(p)]
found = {{w: reached(w) for w in [gateway, *{NODE!r}]}}
raise SystemExit("SEEN " + json.dumps({{"reach": found, "secrets": secrets}}) + " NEES")
"""
