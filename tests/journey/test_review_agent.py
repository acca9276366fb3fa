"""The demonstration of `scripts/dev --once`: a review of two real releases, and the labelled fallback when the index is cut off."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fakes.platform import BIN, ROOT

pytestmark = [pytest.mark.journey, pytest.mark.index, pytest.mark.timeout(300)]

SECTIONS = ["## Test coverage", "## New dependencies", "## Breaking API changes"]
FALLBACK = "> Package index not reachable"


def once(state: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """`moorage dev examples/ --once`, as `scripts/dev --once` runs it."""
    return subprocess.run(
        [str(BIN / "moorage"), "dev", str(ROOT / "examples"), "--once", "--port", "0", "--state", str(state)],
        capture_output=True,
        text=True,
        timeout=280,
        env=os.environ | env,
        check=False,
    )


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One state folder: environments built with the network are there when it is cut."""
    return tmp_path_factory.mktemp("review") / "s"


def test_a_review_of_two_real_releases_states_the_known_facts(state: Path) -> None:
    done = once(state)
    assert done.returncode == 0, done.stderr[-3000:]
    report = done.stdout
    assert FALLBACK not in report
    assert [line for line in report.splitlines() if line.startswith("## ")] == SECTIONS
    assert "None added, 1 dropped" in report and "- **dropped** `sniffio`" in report
    for gone in (
        "httpx.Client.__init__`: parameter `proxies` was removed",
        "httpx.Client.__init__`: parameter `app` was removed",
        "httpx.get`: parameter `proxies` was removed",
        "httpx.get`: parameter `cert` was removed",
    ):
        assert gone in report, gone


def test_with_the_index_cut_off_the_review_says_that_it_is_of_the_sample(state: Path) -> None:
    nowhere = "http://127.0.0.1:9/simple"  # loopback is never reached from a sandbox, whatever listens there
    done = once(state, PIP_INDEX_URL=nowhere, UV_DEFAULT_INDEX=nowhere, UV_OFFLINE="1")
    assert FALLBACK in done.stdout, (done.stdout[:2000], done.stderr[-2000:])
    assert [line for line in done.stdout.splitlines() if line.startswith("## ")] == SECTIONS
