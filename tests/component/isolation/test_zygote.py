"""What a zygote makes of an entry: the fork point, programs run by exec, and entries that never get there."""

from __future__ import annotations

import contextlib
import os
import secrets
import venv
from pathlib import Path

import pytest

from fakes.ward import AGENT, Ward, is_alive
from moorage_local import enclosure
from moorage_local.isolation import IsolationError
from moorage_local.zygote import Zygote, ZygoteFailed

pytestmark = [pytest.mark.component, pytest.mark.isolation]


async def failure(ward: Ward, source: str, **fields: object) -> ZygoteFailed:
    """How the zygote of `source` fails; nothing of it is left afterwards."""
    with pytest.raises(ZygoteFailed) as caught:
        await ward.zygote(ward.spec(source=source, **fields))
    if ward.isolation.groups is not None:
        assert ward.isolation.groups.leftovers() == []
    return caught.value


async def test_agent_processes_are_forked_from_what_was_imported(ward: Ward) -> None:
    zygote = await ward.zygote()
    guest = await ward.guest(zygote)
    assert await guest.tell("import os, __main__; result = __main__.import_pid != os.getpid()")
    assert zygote.alive and zygote.import_seconds < 10 and zygote.threads == 1


async def test_an_entry_that_raises_fails_with_its_traceback(ward: Ward) -> None:
    fault = await failure(ward, "print('importing')\nraise ValueError('a broken agent')")
    assert "ValueError: a broken agent" in str(fault)
    assert fault.log_tail[0] == "importing" and fault.log_tail[-1] == "ValueError: a broken agent"
    assert any("host.py" in line for line in fault.log_tail)


async def test_an_entry_with_a_missing_module_fails_by_its_name(ward: Ward) -> None:
    assert "No module named 'not_installed'" in str(await failure(ward, "import not_installed"))


async def test_an_entry_that_ends_without_serving_is_told_what_to_do(ward: Ward) -> None:
    fault = await failure(ward, "print('done')")
    assert "without calling serve()" in str(fault) and fault.log_tail == ["done"]


async def test_an_entry_that_exits_fails(ward: Ward) -> None:
    assert "SystemExit: 7" in str(await failure(ward, "raise SystemExit(7)"))


async def test_an_entry_that_dies_fails_with_its_last_lines(ward: Ward) -> None:
    fault = await failure(
        ward, "import os, sys\nprint('about to die', flush=True)\nos.kill(os.getpid(), 11)\nos._exit(9)"
    )
    assert "ended with status" in str(fault) and fault.log_tail == ["about to die"]


async def test_an_entry_that_never_serves_fails_at_its_deadline_and_is_killed(ward: Ward) -> None:
    source = "import threading\nprint('waiting for something', flush=True)\nthreading.Event().wait()"
    fault = await failure(ward, source, ready_seconds=2.0)
    assert "within 2 s" in str(fault) and fault.log_tail == ["waiting for something"]


async def test_an_entry_that_serves_inside_an_event_loop_is_refused(ward: Ward) -> None:
    source = "import asyncio, moorage_forkpoint\nasync def main(): moorage_forkpoint.wait()\nasyncio.run(main())"
    assert "inside a running event loop" in str(await failure(ward, source))


async def test_a_missing_entry_is_named(ward: Ward) -> None:
    with pytest.raises(ZygoteFailed, match="'gone.py', and there is no such file"):
        await ward.zygote(ward.spec(entry="gone.py", source=""))


async def test_threads_started_before_the_fork_point_are_warned_of(ward: Ward) -> None:
    early = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    zygote = await ward.zygote(ward.spec(source=early + AGENT))
    assert zygote.threads == 2
    assert any("1 thread(s) were started before serve()" in line for line in ward.lines)
    assert await (await ward.guest(zygote)).tell("result = 1") == 1


async def test_an_object_of_a_module_is_served_by_the_sdk(ward: Ward) -> None:
    spec = ward.spec(entry="made.py", source="def agent(items, ctx): return 'x'\n")
    (spec.code / "moorage.py").write_text(
        "import __main__, runpy\n"
        "class HostedAgent:\n"
        "    def __init__(self, agent): self.agent = agent\n"
        "    def serve(self):\n"
        "        global served\n"
        "        served = self.agent.__name__\n"
        "        runpy.run_path('puppet.py', run_name='__main__')\n"
    )
    (spec.code / "puppet.py").write_text(AGENT)
    zygote = await ward.zygote(enclosure.ZygoteSpec(**{**vars(spec), "entry": "made:agent"}))
    assert await (await ward.guest(zygote)).tell("import moorage; result = moorage.served") == "agent"


async def test_a_foreign_program_is_run_by_exec_for_each_process(ward: Ward) -> None:
    zygote = await ward.zygote(ward.spec(program=True))
    guest = await ward.guest(zygote, SOME="value")
    seen = await guest.tell(
        "import os, sys; result = [os.environ['SOME'], os.getcwd(), 'moorage_forkpoint' in sys.modules]"
    )
    assert seen == ["value", "/app", False]
    first = guest.pid
    assert await guest.kill_all() == 0
    assert await guest.start_agent() != first
    assert await guest.tell("result = 1") == 1


async def test_an_interpreter_in_a_folder_that_tmp_covers_still_works(ward: Ward, tmp_path: Path) -> None:
    place = tmp_path / "environment"
    venv.create(place, symlinks=True)
    spec = ward.spec(python=place / "bin" / "python")
    guest = await ward.guest(await ward.zygote(spec))
    seen = await guest.tell(
        "import subprocess, sys; result = [sys.prefix, subprocess.run([sys.executable, '-c', 'print(1)'],"
        " capture_output=True, text=True, check=True).stdout.strip()]"
    )
    assert seen == [str(place), "1"]


async def test_two_agents_do_not_see_each_other(ward: Ward) -> None:
    one = await ward.guest(await ward.zygote(ward.spec(name="one")))
    (ward.folder / "two" / "code").mkdir(parents=True)
    (ward.folder / "two" / "code" / "private.py").write_text("x")
    two = await ward.guest(await ward.zygote(ward.spec(name="two")))
    listing = "import os; result = sorted(os.listdir('/app'))"
    assert [await one.tell(listing), await two.tell(listing)] == [["host.py"], ["host.py", "private.py"]]


async def test_a_folder_of_the_host_is_shown_read_only_where_the_manifest_asks(ward: Ward, tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "file").write_text("of the host")
    spec = ward.spec(mounts=(enclosure.Bind(str(tmp_path / "repository"), "/mnt/repository"),))
    guest = await ward.guest(await ward.zygote(spec))
    assert await guest.tell("result = open('/mnt/repository/file').read()") == "of the host"
    written = "import os; result = os.access('/mnt/repository', os.W_OK) or os.access('/mnt/repository/file', os.W_OK)"
    assert await guest.tell(written) is False


async def test_the_environment_of_the_manifest_is_there_at_import_and_after(ward: Ward) -> None:
    source = "import os\nAT_IMPORT = os.environ['GIVEN']\n" + AGENT
    zygote = await ward.zygote(ward.spec(source=source, env={"GIVEN": "by the manifest"}))
    guest = await ward.guest(zygote, MORE="by the shim")
    seen = await guest.tell(
        "import os, __main__; result = [__main__.AT_IMPORT, os.environ['GIVEN'], os.environ['MORE']]"
    )
    assert seen == ["by the manifest", "by the manifest", "by the shim"]


async def test_a_private_folder_can_not_be_shown_by_mistake(ward: Ward, tmp_path: Path) -> None:
    with pytest.raises(IsolationError, match="cannot be shown"):
        await Zygote.start(ward.spec(private=(ward.spec().code / "state",)), ward.isolation)


async def test_a_zygote_is_bounded_while_it_imports(ward: Ward) -> None:
    from moorage_local.cgroups import Limits

    if ward.isolation.limits["memory"] == "rlimit":
        pytest.skip("no memory control group on this machine")
    source = "print('importing', flush=True)\nhog = bytearray(200 * 1024 * 1024)"
    fault = await failure(ward, source, limits=Limits(memory=64 * 1024 * 1024))
    assert fault.log_tail[0] == "importing"


async def test_a_failed_zygote_leaves_no_process(ward: Ward) -> None:
    entry = f"e{secrets.token_hex(8)}.py"
    good = await ward.zygote(ward.spec(entry))
    assert good.pid in processes_of(entry)
    await good.close()
    await failure(
        ward, "import os\nif os.fork() == 0:\n    import time; time.sleep(600)\nraise ValueError('x')", entry=entry
    )
    assert processes_of(entry) == []


def processes_of(entry: str) -> list[int]:
    """Those that run it, their forks among them; other tests' processes come and go beside them."""
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if entry.encode() in Path(f"/proc/{pid}/cmdline").read_bytes() and is_alive(pid):
                found.append(pid)
    return found
