"""Birth, work and death of sandboxes in isolated mode: what is kept, what is killed, and that it is seen dead."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
from pathlib import Path

import pytest

from fakes.ward import Ward, below_tmp, is_alive, until
from moorage_local import cgroups
from moorage_local.sandboxes import SandboxFailed
from moorage_sandbox.launcher import processes

pytestmark = [pytest.mark.component, pytest.mark.isolation]

DAEMONS = """
import os, signal, time
def daemon(stop):
    between = os.fork()
    if between == 0:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        if os.fork() == 0:
            if stop:
                os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(600)
        os._exit(0)
    os.waitpid(between, 0)  # so that whoever counts counts daemons only
for number in range(6):
    daemon(number % 2)
result = True
"""


async def test_a_sandbox_serves_over_a_connection_that_init_opens(ward: Ward) -> None:
    guest = await ward.guest(await ward.zygote())
    assert await guest.tell("result = 6 * 7") == 42
    await until(lambda: b"the agent says hello" in guest.output, "its output comes through the pipe of the spawn")


async def test_the_shim_gets_a_listener_inside_the_network_of_the_sandbox(ward: Ward) -> None:
    zygote = await ward.zygote()
    guest = await ward.guest(zygote, agent=False)
    assert (guest.hello["port"], guest.hello["pid"], guest.hello["mode"]) == (8099, 1, "isolated")
    assert guest.host_pid_by_channel == guest.sandbox.host_pid != 1


async def test_a_connection_to_a_port_without_listener_is_refused(ward: Ward) -> None:
    guest = await ward.guest(await ward.zygote(), agent=False)
    reply = await guest.control.call("connect", 5.0, port=8088)
    assert reply.body["op"] == "refused" and "refused" in reply.body["error"]


async def test_an_unknown_request_is_answered_and_the_sandbox_goes_on(ward: Ward) -> None:
    guest = await ward.guest(await ward.zygote())
    assert (await guest.control.call("dance", 5.0)).body["op"] == "error"
    assert await guest.tell("result = 1") == 1


async def test_workspace_and_home_last_with_the_volume_and_tmp_with_the_sandbox(ward: Ward) -> None:
    zygote = await ward.zygote()
    first = await ward.guest(zygote, "kept")
    await first.tell("for f in ('/workspace/a', '/home/agent/b', '/tmp/c'): open(f, 'w').write('x')")
    await first.sandbox.kill()
    second = await ward.guest(zygote, "kept")
    seen = await second.tell("import os; result = [os.listdir(d) for d in ('/workspace', '/home/agent', '/tmp')]")
    assert seen[:2] == [["a"], ["b"]]
    assert [name for name in seen[2] if f"/tmp/{name}" not in below_tmp()] == []


async def test_many_sandboxes_are_made_at_once(ward: Ward) -> None:
    zygote = await ward.zygote()
    guests = await asyncio.gather(*(ward.guest(zygote) for _ in range(8)))
    answers = await asyncio.gather(*(guest.tell("import os; result = os.getpid()") for guest in guests))
    assert answers == [guest.pid for guest in guests]
    assert len({guest.sandbox.host_pid for guest in guests}) == 8


async def test_killall_leaves_nobody_not_even_daemons_and_stopped_ones(ward: Ward) -> None:
    guest = await ward.guest(await ward.zygote())
    await guest.tell(DAEMONS)
    await until(lambda: sum(map(is_alive, guest.sandbox.pids())) == 8, "init, agent and six daemons live")
    doomed = [pid for pid in guest.sandbox.pids() if pid != guest.sandbox.host_pid]
    assert await guest.kill_all() == 0
    assert [pid for pid in doomed if is_alive(pid)] == []
    assert [(each.pid, each.signal, each.oom) for each in guest.exits] == [(guest.pid, 9, False)]
    await guest.start_agent()
    assert await guest.tell("result = 'again'") == "again"


async def test_sigkill_of_init_kills_everything_and_is_proved(ward: Ward) -> None:
    guest = await ward.guest(await ward.zygote())
    await guest.tell(DAEMONS)
    doomed = guest.sandbox.pids()
    os.kill(guest.sandbox.host_pid, signal.SIGKILL)
    death = await asyncio.wait_for(guest.sandbox.ended(), 10)
    assert (death.proof, death.oom) == ("pid namespace ended", False)
    assert [pid for pid in doomed if is_alive(pid)] == []
    await asyncio.wait_for(guest.lost.wait(), 5)


async def test_an_agent_that_ignores_sigterm_is_killed_by_killall(ward: Ward) -> None:
    guest = await ward.guest(await ward.zygote(), agent=False)
    await guest.start_agent()
    # Only the main thread may set a handler; the block by mask reaches every thread that comes after, and this one.
    await guest.tell(
        "import ctypes, signal\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]\n"
        "libc.signal(15, 1)\n"
        "result = True"
    )
    assert (await guest.control.call("term", 5.0)).body["pids"] == [guest.pid]
    assert await guest.tell("result = 'still here'") == "still here"
    assert await guest.kill_all() == 0


async def test_an_agent_that_ends_is_reported_with_its_status(ward: Ward) -> None:
    guest = await ward.guest(await ward.zygote())
    async with asyncio.timeout(10):
        connection = await guest.connect()
    body = b"import os; os._exit(3)"
    connection.setblocking(True)
    connection.sendall(b"POST / HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    await until(lambda: bool(guest.exits), "the exit is told")
    connection.close()
    assert (guest.exits[0].pid, guest.exits[0].status, guest.exits[0].signal) == (guest.pid, 3, None)


async def test_a_shim_that_goes_away_takes_its_sandbox_with_it(ward: Ward) -> None:
    guest = await ward.guest(await ward.zygote())
    await guest.tell(DAEMONS)
    guest.control.close()
    death = await asyncio.wait_for(guest.sandbox.ended(), 15)
    assert death.sandbox == guest.sandbox.name


async def test_a_closed_zygote_leaves_no_process_and_no_control_group(ward: Ward) -> None:
    zygote = await ward.zygote(ward.spec(limits=cgroups.Limits()))
    guests = [await ward.guest(zygote) for _ in range(3)]
    doomed = [pid for guest in guests for pid in guest.sandbox.pids()] + [
        zygote.pid,
        *processes.descendants(zygote.pid),
    ]
    await zygote.close()
    assert not zygote.alive
    # The kernel ends what its parent leaves behind in its own time.
    await until(lambda: not any(is_alive(pid) for pid in doomed), "nobody outlives the zygote")
    if ward.isolation.groups is not None:
        assert ward.isolation.groups.leftovers() == []


async def test_a_sandbox_without_its_volume_fails_by_name_and_leaves_nothing(ward: Ward) -> None:
    zygote = await ward.zygote()
    control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with control, other, pytest.raises(SandboxFailed, match="lost-volume"):
        await zygote.spawn(
            sandbox="sb-x", volume=Path("lost-volume"), control_fd=control.fileno(), limits=cgroups.Limits()
        )
    if ward.isolation.groups is not None:
        assert ward.isolation.groups.leftovers() == []
    assert await (await ward.guest(zygote)).tell("result = 1") == 1, "the zygote goes on"


async def test_a_dead_zygote_refuses_and_its_sandboxes_are_dead(ward: Ward) -> None:
    zygote = await ward.zygote()
    guest = await ward.guest(zygote)
    os.kill(zygote.pid, signal.SIGKILL)
    await asyncio.wait_for(guest.sandbox.ended(), 10)
    await until(lambda: not zygote.alive, "the death of the zygote is seen")
    with pytest.raises(SandboxFailed):
        await ward.guest(zygote)


async def test_rlimits_hold_inside(ward: Ward) -> None:
    guest = await ward.guest(
        await ward.zygote(), limits=cgroups.Limits(nofile=128, fsize=1_000_000, tmp=2 * 1024 * 1024)
    )
    seen = await guest.tell(
        """
        import errno, os, resource, signal
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGXFSZ])
        def write(path, size):
            try:
                with open(path, "wb", buffering=0) as file:
                    while size > 0:
                        size -= file.write(bytes(500_000))
            except OSError as fault:
                return errno.errorcode[fault.errno]
            return "written"
        result = {
            "files": resource.getrlimit(resource.RLIMIT_NOFILE),
            "core": resource.getrlimit(resource.RLIMIT_CORE),
            "large file": write("/workspace/large", 2_000_000),
            "tmp": [write(f"/tmp/{n}", 500_000) for n in range(5)][-1],
        }
        """
    )
    assert seen == {"files": [128, 128], "core": [0, 0], "large file": "EFBIG", "tmp": "ENOSPC"}
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] != 128


async def test_a_fork_bomb_harms_only_its_sandbox(ward: Ward) -> None:
    zygote = await ward.zygote()
    neighbour = await ward.guest(zygote)
    guest = await ward.guest(zygote, limits=cgroups.Limits(pids=40))
    bomb = """
    import os, time
    result = 0
    while result < 500:
        try:
            if os.fork() == 0:
                time.sleep(600)
                os._exit(0)
            result += 1
        except OSError:
            break
    """
    assert await guest.tell(bomb) < 40
    assert len(guest.sandbox.pids()) <= 40
    assert await neighbour.tell("import os, subprocess; result = subprocess.run(['true']).returncode") == 0
    assert await (await ward.guest(zygote)).tell("result = 'a new sandbox'") == "a new sandbox"
    assert await guest.kill_all() == 0
    await guest.start_agent()
    assert await guest.tell("result = 'recovered'") == "recovered"


async def test_a_memory_hog_dies_alone_and_is_told_apart(ward: Ward) -> None:
    zygote = await ward.zygote()
    neighbour = await ward.guest(zygote)
    guest = await ward.guest(zygote, limits=cgroups.Limits(memory=64 * 1024 * 1024))
    if ward.isolation.limits["memory"] == "rlimit":
        assert "MemoryError" in await guest.tell(
            "try:\n    bytearray(128 * 1024 * 1024)\nexcept MemoryError:\n    result = 'MemoryError'"
        )
        return
    connection = await guest.connect()
    connection.setblocking(True)
    body = b"hog = bytearray(128 * 1024 * 1024)"
    connection.sendall(b"POST / HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    await until(lambda: bool(guest.exits), "the agent is killed")
    connection.close()
    assert (guest.exits[0].signal, guest.exits[0].oom) == (9, True)
    assert guest.sandbox.alive and await neighbour.tell("result = 'unharmed'") == "unharmed"
    await guest.start_agent()
    assert await guest.tell("result = 'again'") == "again"
    assert (await guest.sandbox.kill()).oom


async def test_the_provider_s_death_ends_its_zygotes_and_sandboxes(ward: Ward) -> None:
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from fakes.ward import LAUNCHER, Ward\n"
        "from moorage_local import probe\n"
        "async def main():\n"
        f"    machine = await probe.detect(instance='test-dying-{os.getpid()}', launcher=LAUNCHER)\n"
        f"    ward = Ward(Path({str(ward.folder)!r}), machine, Path(sys.executable))\n"
        "    guest = await ward.guest(await ward.zygote())\n"
        "    print(*guest.sandbox.pids(), flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    tests = Path(__file__).parents[2]
    provider = await asyncio.create_subprocess_exec(
        str(ward.python), "-c", code, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(tests)}
    )
    assert provider.stdout is not None
    doomed = [int(pid) for pid in (await asyncio.wait_for(provider.stdout.readline(), 30)).split()]
    assert len(doomed) == 2 and all(is_alive(pid) for pid in doomed)
    provider.kill()
    await provider.wait()
    await until(lambda: not any(is_alive(pid) for pid in doomed), "nobody outlives the provider")
    leftovers = cgroups.find(f"test-dying-{os.getpid()}")
    if leftovers is not None:
        await until(lambda: all(not group.pids() for group in leftovers.leftovers()), "the groups empty")
        assert await leftovers.sweep() == 1
        await leftovers.close()
