"""What the start message says of a machine: each thing that does not hold has its sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorage_local.cgroups import Cgroups, Limits
from moorage_local.isolation import describe
from moorage_local.zygote import inner_limits

pytestmark = pytest.mark.unit

ALL = Cgroups(1, {name: Path("/x") for name in ("memory", "cpu", "pids")})


@pytest.mark.parametrize(
    ("mode", "groups", "said", "unsaid"),
    [
        ("isolated", ALL, ["Disk"], ["NOT ISOLATED", "Memory", "CPU", "processes is", "systemd-run"]),
        ("isolated", Cgroups(2, {"memory": Path("/x")}), ["CPU", "number of processes"], ["Memory", "systemd-run"]),
        ("isolated", None, ["Memory", "CPU", "for a sandbox", "systemd-run"], ["NOT ISOLATED"]),
        ("plain", ALL, ["NOT ISOLATED: no bubblewrap", "see the files"], ["outlive", "Memory"]),
        ("plain", None, ["NOT ISOLATED", "outlive", "Memory", "the user that runs"], []),
    ],
)
def test_what_does_not_hold_is_said(mode: str, groups: Cgroups | None, said: list[str], unsaid: list[str]) -> None:
    text = "\n".join(describe(mode, groups, as_root=False, why_plain="no bubblewrap").not_limited)  # type: ignore[arg-type]
    assert [part for part in said if part not in text] == []
    assert [part for part in unsaid if part in text] == []


def test_running_agents_as_root_is_said() -> None:
    assert any("run as root" in line for line in describe("plain", None, as_root=True).not_limited)
    assert not any("run as root" in line for line in describe("isolated", None, as_root=True).not_limited)


def test_rlimits_stand_in_only_for_what_no_control_group_keeps() -> None:
    limits = Limits(memory=100, pids=5, nofile=6, fsize=7, tmp=8)
    always = {"nofile": 6, "fsize": 7, "tmp": 8}
    assert inner_limits(limits, describe("isolated", ALL, as_root=False).limits) == always
    without = describe("isolated", None, as_root=False).limits
    assert inner_limits(limits, without) == always | {"data": 100, "nproc": 5}
