"""The isolated mode for an ordinary user, without root and without control groups; tried from root by becoming nobody."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.component, pytest.mark.isolation]

NOBODY = 65534
SCRIPT = """
import asyncio, os, sys
from pathlib import Path
user, folder = int(sys.argv[1]), Path(sys.argv[2])
os.setgroups([]); os.setresgid(user, user, user); os.setresuid(user, user, user)
from fakes.ward import LAUNCHER, Ward
from moorage_local import cgroups, probe
async def main():
    machine = await probe.detect(instance="test-nobody", launcher=LAUNCHER)
    print(machine.mode, machine.limits["memory"], machine.limits["pids"], machine.why_plain)
    if machine.mode == "plain":
        return
    ward = Ward(folder, machine, Path(sys.executable))
    zygote = await ward.zygote()
    neighbour = await ward.guest(zygote)
    guest = await ward.guest(zygote, limits=cgroups.Limits(memory=1 << 28, pids=20))
    bomb = '''
import os, time
result = 0
while result < 100:
    try:
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
    except OSError:
        break
    result += 1
'''
    print("forks", await guest.tell(bomb))
    print("killed", await guest.kill_all())
    await guest.start_agent()
    hog = "try:\\n    bytearray(1 << 29)\\nexcept MemoryError:\\n    result = 'bounded'"
    print("memory", await guest.tell(hog))
    print("neighbour", await neighbour.tell("import subprocess; result = subprocess.run(['true']).returncode"))
    death = await guest.sandbox.kill()
    print("proof", death.proof)
    await ward.close()
asyncio.run(main())
"""


def reachable_python() -> str | None:
    """An interpreter that any user can run, new enough for the platform."""
    if os.getuid() != 0:
        return sys.executable
    for name in ("/usr/bin/python3", "/usr/local/bin/python3"):
        if shutil.which(name):
            asked = [name, "-c", "import sys; sys.exit(sys.version_info[:2] != (3, 11))"]
            if subprocess.run(asked, check=False).returncode == 0:
                return name
    return None


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder in which another user can work: the usual one is closed to everybody else."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_an_ordinary_user_gets_isolation_with_rlimits(open_folder: Path) -> None:
    python = reachable_python()
    if python is None:
        pytest.skip("no interpreter that an ordinary user can run on this machine")
    user = NOBODY if os.getuid() == 0 else os.getuid()
    if os.getuid() == 0:
        os.chown(open_folder, user, user)
    script = SCRIPT if os.getuid() == 0 else SCRIPT.replace("os.setgroups([]); ", "")
    root = Path(__file__).parents[3]
    site = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    paths = [root / "tests", root / "local", root / "sandbox-image", root / "crds", site]
    run = subprocess.run(
        [python, "-W", "ignore", "-c", script, str(user), str(open_folder)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(map(str, paths)), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    first, *rest = run.stdout.splitlines()
    if first.startswith("plain"):
        if os.environ.get("MOORAGE_REQUIRE_ISOLATION") == "1":
            pytest.fail(first)
        pytest.skip(first)
    assert first.startswith("isolated ")
    told = dict(line.split(" ", 1) for line in rest)
    assert 0 < int(told["forks"]) <= 20
    assert (told["killed"], told["memory"], told["neighbour"]) == ("0", "bounded", "0")
    assert told["proof"] == "pid namespace ended"
