"""Plain mode: no isolation, and it says so; but what a sandbox started is still killed to the last process, with proof."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from fakes.ward import Ward, is_alive, until
from moorage_local import sandboxes

pytestmark = [pytest.mark.component, pytest.mark.isolation]

DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
os.wait()
result = True
"""


async def test_it_serves_on_a_free_port_in_the_folders_of_the_session(plain_ward: Ward) -> None:
    zygote = await plain_ward.zygote()
    one, two = await plain_ward.guest(zygote), await plain_ward.guest(zygote)
    assert one.port != two.port and one.hello["port"] != two.hello["port"] and one.hello["mode"] == "plain"
    names = ("HOME", "MOORAGE_WORKSPACE", "TMPDIR")
    seen = await one.tell(f"import os; result = [os.environ[name] for name in {names}]")
    assert seen == [str(one.volume / name) for name in ("home", "workspace", "tmp")]
    assert await two.tell("import os; result = os.getpid()") == two.pid


async def test_its_warning_says_what_does_not_hold(plain_ward: Ward) -> None:
    said = plain_ward.isolation.not_limited
    assert said[0].startswith("NOT ISOLATED")
    assert any("see the files, processes and network" in line for line in said)


async def test_killall_finds_daemons_too(plain_ward: Ward) -> None:
    guest = await plain_ward.guest(await plain_ward.zygote())
    await guest.tell(DAEMON)
    await until(lambda: sum(map(is_alive, guest.sandbox.pids())) == 3, "init, agent and daemon live")
    doomed = guest.sandbox.pids()[1:]
    assert await guest.kill_all() == 0
    assert [pid for pid in doomed if is_alive(pid)] == []
    await guest.start_agent()
    assert await guest.tell("result = 1") == 1


async def test_the_death_of_init_takes_the_daemons_along(plain_ward: Ward) -> None:
    guest = await plain_ward.guest(await plain_ward.zygote())
    await guest.tell(DAEMON)
    doomed = guest.sandbox.pids()
    os.kill(guest.sandbox.host_pid, signal.SIGKILL)
    await asyncio.wait_for(guest.sandbox.ended(), 10)
    assert [pid for pid in doomed if is_alive(pid)] == []


async def test_without_control_groups_the_zygote_s_word_is_the_proof(bare_ward: Ward) -> None:
    zygote = await bare_ward.zygote()
    neighbour, guest = await bare_ward.guest(zygote), await bare_ward.guest(zygote)
    await guest.tell(DAEMON)
    doomed = guest.sandbox.pids()
    os.kill(guest.sandbox.host_pid, signal.SIGKILL)
    death = await asyncio.wait_for(guest.sandbox.ended(), 10)
    assert death.proof == "no descendant left"
    assert [pid for pid in doomed if is_alive(pid)] == []
    assert await neighbour.tell("result = 'untouched'") == "untouched"


async def test_of_inits_that_die_together_none_is_forgotten(bare_ward: Ward) -> None:
    zygote = await bare_ward.zygote()
    guests = [await bare_ward.guest(zygote) for _ in range(4)]
    for guest in guests:
        await guest.tell(DAEMON)
    for guest in guests:  # while the zygote looks for what one left behind, the next one dies
        os.kill(guest.sandbox.host_pid, signal.SIGKILL)
    deaths = await asyncio.wait_for(asyncio.gather(*(guest.sandbox.ended() for guest in guests)), 10)
    assert [death.proof for death in deaths] == ["no descendant left"] * 4


async def test_without_control_groups_and_zygote_the_mark_finds_the_rest(bare_ward: Ward) -> None:
    zygote = await bare_ward.zygote()
    guest = await bare_ward.guest(zygote)
    # A program run anew: only then does the system show the environment that the agent process was given.
    await guest.tell("import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True); result = 1")
    await until(lambda: len(sandboxes.marked(guest.sandbox.name)) == 1, "the daemon carries the mark")
    doomed = [*guest.sandbox.pids(), *sandboxes.marked(guest.sandbox.name)]
    os.kill(zygote.pid, signal.SIGKILL)
    os.kill(guest.sandbox.host_pid, signal.SIGKILL)
    death = await asyncio.wait_for(guest.sandbox.ended(), 10)
    assert death.proof == "no process carries its mark"
    assert [pid for pid in doomed if is_alive(pid)] == []


async def test_a_sandbox_can_be_killed_from_outside(plain_ward: Ward) -> None:
    guest = await plain_ward.guest(await plain_ward.zygote())
    await guest.tell(DAEMON)
    doomed = guest.sandbox.pids()
    await guest.sandbox.kill()
    assert [pid for pid in doomed if is_alive(pid)] == []
    assert guest.sandbox.pids() == [] and not guest.sandbox.alive


async def test_memory_is_bounded_for_each_process_without_a_control_group(bare_ward: Ward) -> None:
    guest = await bare_ward.guest(await bare_ward.zygote())
    told = await guest.tell("try:\n    bytearray(1 << 30)\nexcept MemoryError:\n    result = 'bounded'")
    assert told == "bounded"


async def test_no_capability_is_left_even_where_the_platform_runs_as_root(plain_ward: Ward) -> None:
    guest = await plain_ward.guest(await plain_ward.zygote())
    status = await guest.tell("result = open('/proc/self/status').read()")
    assert "CapEff:\t0000000000000000" in status and "CapBnd:\t" in status


async def test_the_shim_s_end_ends_the_sandbox(plain_ward: Ward) -> None:
    guest = await plain_ward.guest(await plain_ward.zygote())
    await guest.tell(DAEMON)
    doomed = guest.sandbox.pids()
    guest.control.close()
    await asyncio.wait_for(guest.sandbox.ended(), 15)
    assert [pid for pid in doomed if is_alive(pid)] == []
