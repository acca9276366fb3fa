"""What a sandbox keeps over hibernation, where it may write, and links that point out of it (T13, F23)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fakes.platform import poll
from fakes.prober import ToldError, descriptors
from moorage_api import names

pytestmark = pytest.mark.isolation


def hibernate(world: Any, session: str) -> None:
    """Lets the session's sandbox go."""
    path = f"/v1/agents/prober/sessions/{session}"
    assert world.door.ask("POST", f"{path}/stop").status == 200
    poll("it sleeps", lambda: world.door.ask("GET", path).body["status"] == "hibernated", within=20)


def volume(world: Any, session: str) -> Path:
    """The folder of a session's files on the host."""
    key = names.session_key("dev", names.partition("dev", "prober", "dev", session))
    one = next(one for one in descriptors(world.platform) if one["session"] == key)
    return Path(world.platform.state) / "volumes" / one["tenant"] / one["agent"] / one["volume"]


def test_workspace_and_home_are_kept_and_tmp_is_not(world: Any, told: Any) -> None:
    told(
        "keeping-1",
        """
        import os, subprocess
        for folder in ("/workspace", os.environ["HOME"], "/tmp", "/dev/shm"):
            open(folder + "/kept", "w").write(folder)
        os.symlink("/etc/passwd", "/workspace/link")
        os.chmod("/workspace/kept", 0o600)
        subprocess.Popen(["sleep", "600"])
        """,
    )
    first = told("keeping-1", "import os; result = os.environ['MOORAGE_SANDBOX']")
    hibernate(world, "keeping-1")
    seen = told(
        "keeping-1",
        """
        import os
        folders = ("/workspace", os.environ["HOME"], "/tmp", "/dev/shm")
        result = {folder: os.path.exists(folder + "/kept") for folder in folders}
        result["content"] = open("/workspace/kept").read()
        result["mode"] = os.stat("/workspace/kept").st_mode & 0o777
        result["link"] = os.readlink("/workspace/link")
        result["processes"] = len([n for n in os.listdir("/proc") if n.isdigit()])
        result["sandbox"] = os.environ["MOORAGE_SANDBOX"]
        """,
    )
    assert seen.pop("sandbox") != first
    assert seen == {
        "/workspace": True,
        "/home/agent": True,
        "/tmp": False,
        "/dev/shm": False,
        "content": "/workspace",
        "mode": 0o600,
        "link": "/etc/passwd",
        "processes": 2,
    }


def test_nothing_else_can_be_written(told: Any) -> None:
    written = told(
        "keeping-2",
        """
        import os
        result = []
        for place, folders, _ in os.walk("/"):
            if place == "/proc" or place.count("/") > 3:
                folders[:] = []
                continue
            try:
                open(os.path.join(place, "left"), "w").close()
                os.unlink(os.path.join(place, "left"))
                result.append(place)
            except OSError:
                pass
        """,
    )
    # Folders below /tmp are of the sandbox's own memory, too: the places its environment is shown at.
    top = sorted(place for place in written if not place.startswith("/tmp/"))
    assert top == ["/dev/shm", "/home/agent", "/tmp", "/workspace"]
    for code in (
        "open('/app/host.py', 'a')",
        "import os; os.rename('/workspace', '/workspace2')",
        "import os; os.rmdir('/home/agent')",
        "import os; os.chmod('/app', 0o777)",
        "import sys; open(sys.executable, 'ab')",
        "import os; os.mknod('/workspace/dev', 0o600 | 0o020000, os.makedev(1, 3))",
        "import os; os.link('/app/host.py', '/workspace/hard')",
        "import os; os.chown('/workspace', 0, 0)",
    ):
        with pytest.raises(ToldError, match="OSError|PermissionError"):
            told("keeping-2", code)


def test_links_out_of_the_workspace_lead_the_platform_nowhere(world: Any, told: Any, tmp_path: Path) -> None:
    """Quota scan, hibernation, waking and deletion walk a tree full of traps; what they point to stays as it is."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    big = outside / "big"
    with big.open("wb") as file:
        file.write(b"x" * (64 << 20))  # more than the quota: counted by nobody
    tmp_path.chmod(0o755)
    told(
        "links-session-1",
        f"""
        import os
        os.chdir("/workspace")
        for number, target in enumerate(["{outside}", "{big}", "{world.platform.state}", "/", "..", "../.moorage", "."]):
            os.symlink(target, f"link-{{number}}")
        os.symlink("loop", "loop")
        os.mkfifo("fifo")
        os.makedirs("closed/inner")
        open("closed/inner/file", "w").close()
        os.chmod("closed/inner", 0)
        os.chmod("closed", 0)
        open(b"not-utf8-\\xff\\n\\x1b[31m", "w").close()
        os.mkdir("-rf *")
        os.symlink("{outside}/new", ".moorage")
        os.symlink("{outside}", os.environ["HOME"] + "/.cache")
        """,
    )
    before = told("links-session-1", "import os; result = os.environ['MOORAGE_SANDBOX']")
    hibernate(world, "links-session-1")
    assert told("links-session-1", "import os; result = os.readlink('/workspace/link-0')") == str(outside)
    place = volume(world, "links-session-1")
    assert place.is_dir()
    assert told("links-session-1", "import os; result = os.environ['MOORAGE_SANDBOX']") != before
    assert world.door.ask("DELETE", "/v1/agents/prober/sessions/links-session-1").status == 200
    poll("its files are gone", lambda: not place.exists(), within=20)
    assert sorted(os.listdir(outside)) == ["big", "precious"]
    assert (outside / "precious").read_text() == "precious" and big.stat().st_size == 64 << 20
    assert (Path(world.platform.state) / "token_key").exists()


def test_a_tree_deeper_than_any_path_is_counted_and_removed(world: Any, told: Any) -> None:
    """1,500 folders in one another: longer than a path may be, deeper than a walk may recurse."""
    told(
        "deep-session-1",
        """
        import os
        os.chdir("/workspace")
        for _ in range(1_500):
            os.mkdir("d" * 20)
            os.chdir("d" * 20)
        open("bottom", "w").write("x")
        os.chdir("/")
        """,
    )
    place = volume(world, "deep-session-1")
    assert world.door.ask("DELETE", "/v1/agents/prober/sessions/deep-session-1").status == 200
    trash = place.parent
    poll(
        "its files are gone",
        lambda: not any(one.name.startswith((place.name, f".{place.name}")) for one in trash.iterdir()),
        within=20,
    )
    status = world.door.ask("GET", "/v1/agents/prober/sessions/deep-session-1").status
    assert status == 404
    assert told("deep-session-2", "result = 'fine'") == "fine"
