"""Control groups: which files are written for which limits, on folders made like a control group file system."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorage_local import cgroups
from moorage_local.cgroups import Cgroup, Cgroups, Limits, find, settings

pytestmark = pytest.mark.unit

LIMITS = Limits(memory=1000, cpu=0.25, pids=7)


@pytest.mark.parametrize(
    ("version", "controller", "written"),
    [
        (1, "memory", {"memory.limit_in_bytes": "1000", "memory.memsw.limit_in_bytes": "1000"}),
        (1, "cpu", {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "25000"}),
        (1, "pids", {"pids.max": "7"}),
        (2, "memory", {"memory.max": "1000", "memory.swap.max": "0"}),
        (2, "cpu", {"cpu.max": "25000 100000"}),
        (2, "pids", {"pids.max": "7"}),
        (2, "io", {}),
    ],
)
def test_each_limit_has_its_file(version: int, controller: str, written: dict[str, str]) -> None:
    assert {file: value for file, value, _ in settings(version, controller, LIMITS)} == written


def test_a_tiny_share_of_cpu_is_the_least_the_kernel_takes() -> None:
    assert settings(2, "cpu", Limits(cpu=0.0001))[0][1] == "1000 100000"


def test_the_first_version_has_a_folder_in_each_hierarchy(tmp_path: Path) -> None:
    parents = {name: tmp_path / name for name in ("memory", "pids")}
    for parent in parents.values():
        parent.mkdir()
    group = Cgroups(1, parents).create("sb-1", LIMITS)
    assert (tmp_path / "memory" / "sb-1" / "memory.limit_in_bytes").read_text() == "1000"
    assert (tmp_path / "pids" / "sb-1" / "pids.max").read_text() == "7"
    assert group.entrances() == [tmp_path / "memory" / "sb-1" / "tasks", tmp_path / "pids" / "sb-1" / "tasks"]
    assert not (tmp_path / "memory" / "sb-1" / "memory.memsw.limit_in_bytes").exists(), "only where the kernel has it"


def test_a_name_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    groups = Cgroups(2, {"memory": tmp_path, "pids": tmp_path})
    groups.create("sb-1", LIMITS)
    with pytest.raises(FileExistsError):
        groups.create("sb-1", Limits(memory=5))
    assert (tmp_path / "sb-1" / "memory.max").read_text() == "1000"


def test_membership_is_read_from_every_hierarchy(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("memory", "pids")}
    for folder, members in zip(folders.values(), ("10\n11\n", "10\n"), strict=True):
        folder.mkdir()
        (folder / "cgroup.procs").write_text(members)
    group = Cgroup("sb-1", 1, folders)
    assert group.pids() == {10, 11}
    assert group.holds(10) and not group.holds(11)


def test_kills_for_memory_are_counted_in_both_versions(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n")
    assert Cgroup("a", 2, {"memory": tmp_path}).oom_kills() == 2
    assert Cgroup("a", 1, {"memory": tmp_path}).oom_kills() == 4
    assert Cgroup("a", 1, {"pids": tmp_path}).oom_kills() == 0
    assert Cgroup("a", 1, {"memory": tmp_path / "gone"}).oom_kills() == 0


async def test_leftovers_are_those_of_this_instance_and_a_sweep_removes_them(tmp_path: Path) -> None:
    for name in ("sb-1", "sb-2"):
        (tmp_path / name).mkdir()
    groups = Cgroups(2, {"memory": tmp_path})
    assert [group.name for group in groups.leftovers()] == ["sb-1", "sb-2"]
    assert await groups.sweep() == 2
    assert list(tmp_path.iterdir()) == []


async def test_a_group_that_stays_occupied_is_named_at_the_deadline(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("2000000000\n")  # beyond any process number, so nobody is hurt
    with pytest.raises(cgroups.CgroupBusy, match="sb-1"):
        await Cgroup("sb-1", 1, {"pids": tmp_path}).kill(seconds=0.02)


def machine(folder: Path, mountinfo: str, own: str) -> Path:
    proc = folder / "proc"
    proc.mkdir()
    (proc / "mountinfo").write_text(mountinfo.replace("ROOT", str(folder)))
    (proc / "cgroup").write_text(own)
    return proc


def second_version(folder: Path, place: str, *, offered: str, enabled: str, members: str = "") -> Path:
    base = folder / place
    base.mkdir(parents=True, exist_ok=True)
    (base / "cgroup.controllers").write_text(offered)
    (base / "cgroup.subtree_control").write_text(enabled)
    (base / "cgroup.procs").write_text(members)
    return base


def test_a_delegated_group_of_the_second_version_is_used(tmp_path: Path) -> None:
    base = second_version(tmp_path, "cg/user/scope", offered="cpu memory pids io", enabled="cpu memory pids")
    proc = machine(tmp_path, "30 1 0:1 / ROOT/cg rw - cgroup2 cgroup2 rw\n", "0::/user/scope\n")
    found = find("x", proc=proc, uid=1000)
    assert found is not None and found.version == 2
    assert found.controllers == {"memory", "cpu", "pids"}
    assert set(found.parents.values()) == {base / "moorage-x"}
    assert (base / "moorage-x" / "cgroup.subtree_control").read_text() == "+memory +cpu +pids"


def test_our_own_process_moves_to_a_leaf_so_that_controllers_can_be_enabled(tmp_path: Path) -> None:
    import os

    base = second_version(tmp_path, "cg/scope", offered="memory pids", enabled="", members=f"{os.getpid()}\n")
    proc = machine(tmp_path, "30 1 0:1 / ROOT/cg rw - cgroup2 cgroup2 rw\n", "0::/scope\n")
    found = find("x", proc=proc, uid=1000)
    assert found is not None and found.controllers == {"memory", "pids"}
    assert (base / "moorage-self" / "cgroup.procs").read_text() == str(os.getpid())


def test_a_group_without_controllers_gives_none(tmp_path: Path) -> None:
    second_version(tmp_path, "cg/scope", offered="", enabled="")
    proc = machine(tmp_path, "30 1 0:1 / ROOT/cg rw - cgroup2 cgroup2 rw\n", "0::/scope\n")
    assert find("x", proc=proc, uid=1000) is None


def test_a_machine_without_control_groups_gives_none(tmp_path: Path) -> None:
    assert find("x", proc=machine(tmp_path, "30 1 0:1 / / rw - ext4 /dev/x rw\n", "0::/\n"), uid=0) is None


def test_the_first_version_is_found_below_our_own_group_where_that_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "memory" / "box").mkdir(parents=True)
    (tmp_path / "pids").mkdir()
    for parent in (tmp_path / "memory" / "box" / "moorage-x", tmp_path / "pids" / "moorage-x"):
        parent.mkdir()
        (parent / "cgroup.procs").write_text("")
    mounts = (
        "30 1 0:1 / ROOT/memory rw - cgroup cgroup rw,memory\n"
        "31 1 0:2 /docker/abc ROOT/pids rw - cgroup cgroup rw,pids\n"
    )
    found = find("x", proc=machine(tmp_path, mounts, "4:memory:/box\n3:pids:/docker/abc\n"), uid=0)
    assert found is not None and found.version == 1
    assert dict(found.parents) == {
        "memory": tmp_path / "memory" / "box" / "moorage-x",
        "pids": tmp_path / "pids" / "moorage-x",
    }
