"""A gateway with a wrong setting does not start: exit 2, one line that names the variable, never its value (S10, T19)."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fakes.platform import BIN

pytestmark = pytest.mark.journey

CANARY = "value-canary-77"
GOOD = {"MOORAGE_REDIS_URL": "unix:///nowhere/redis.sock", "MOORAGE_STORE": "/nowhere"}
# Each is wrong by itself, and all are named at once.
FIELDS = {
    "MOORAGE_REDIS_URL": f"http://u:{CANARY}@h",
    "MOORAGE_PUBLIC_PORT": "70000",
    "MOORAGE_HEADER_BYTES": CANARY,
    "MOORAGE_INPUT_BYTES": "1",
    "MOORAGE_ACQUIRE_SECONDS": "0",
    "MOORAGE_HEADER_SECONDS": "nan",
    "MOORAGE_DRAIN_SECONDS": "-1",
    "MOORAGE_DURABILITY": CANARY,
    "MOORAGE_DEV": CANARY,
    "MOORAGE_OTLP_ENDPOINT": CANARY,
    "MOORAGE_GATEWAY_ID": f"No {CANARY}",
    "MOORAGE_JSON_DEPTH": "3",
    "MOORAGE_ACCESS_LOG": "file",
}
WRONG: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "bare": ({}, ("MOORAGE_REDIS_URL", "MOORAGE_STORE")),
    "fields": (GOOD | FIELDS, tuple(f"{name}: " for name in FIELDS)),
    "anonymous alone": (GOOD | {"MOORAGE_ANONYMOUS": "1"}, ("MOORAGE_ANONYMOUS", "MOORAGE_DEV")),
    "anonymous for all": (
        GOOD | {"MOORAGE_ANONYMOUS": "1", "MOORAGE_DEV": "1", "MOORAGE_PUBLIC_HOST": "0.0.0.0"},
        ("MOORAGE_ANONYMOUS", "MOORAGE_PUBLIC_HOST"),
    ),
    "half an S3": (GOOD | {"MOORAGE_STORE": "s3://bucket", "MOORAGE_S3_SECRET_KEY": CANARY}, ("MOORAGE_S3_ENDPOINT",)),
}


def ended(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A gateway with nothing in its environment but this."""
    base = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [str(BIN / "moorage-gateway")], env=base | env, capture_output=True, text=True, timeout=60, check=False
    )


def test_every_wrong_setting_names_itself() -> None:
    with ThreadPoolExecutor(2) as pool:
        results = dict(zip(WRONG, pool.map(ended, (env for env, _ in WRONG.values())), strict=True))
    for name, (_, words) in WRONG.items():
        found = results[name]
        assert found.returncode == 2, (name, found.stderr)
        for word in words:
            assert word in found.stderr, (name, found.stderr)
        assert CANARY not in found.stderr + found.stdout, name
        assert "Traceback" not in found.stderr, name


def test_a_platform_says_what_is_wrong_with_how_it_was_called(tmp_path: Path) -> None:
    for arguments, word in (
        (["dev", str(tmp_path / "absent")], "there is no folder"),
        (["dev", str(tmp_path), "--port", "99999"], "--port"),
        (["dev", str(tmp_path), "--ephemeral", "--state", str(tmp_path)], "--state"),
        (["dev", str(tmp_path), "--fsync", "never"], "--fsync"),
    ):
        found = subprocess.run(
            [str(BIN / "moorage"), *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert found.returncode == 2, (arguments, found.stderr)
        assert word in found.stderr and "Traceback" not in found.stderr, found.stderr
