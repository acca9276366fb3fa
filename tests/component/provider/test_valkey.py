"""The embedded Valkey keeps what it was told, ends with us, and never has a twin on the same folder."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from redis.asyncio import Redis

from moorage_local import processes, state, valkey

pytestmark = pytest.mark.component


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    with state.hold(tmp_path / "a folder with blanks") as held:
        server = valkey.Valkey(held, valkey.ValkeySettings())
        await server.start()
        async with Redis.from_url(server.url) as client:
            config = await client.config_get("append*", "maxmemory-policy", "port")
            await client.set("k", "v")
        os.kill(server.pid, signal.SIGKILL)
        await asyncio.wait_for(server.wait_ended(), 5)
        await server.start()
        async with Redis.from_url(server.url) as client:
            assert await client.get("k") == b"v"
        await server.stop()
        assert (config["appendonly"], config["appendfsync"]) == ("yes", "always")
        assert (config["maxmemory-policy"], config["port"]) == ("noeviction", "0")


async def test_the_socket_is_private_and_short(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    with state.hold(deep) as held:
        async with valkey.running(held, valkey.ValkeySettings(fsync="everysec")) as server:
            assert os.stat(held.runtime).st_mode & 0o777 == 0o700
            assert len(str(server.socket)) <= state.LONGEST_SOCKET_PATH
            pid = server.pid
        assert processes.identify(pid) is None
        assert not list(held.runtime.glob("valkey.sock"))


def test_a_second_platform_on_the_folder_is_refused(tmp_path: Path) -> None:
    with state.hold(tmp_path / "s"):
        with pytest.raises(state.StateError, match="another platform runs"), state.hold(tmp_path / "s"):
            pass
    with state.hold(tmp_path / "s"):
        pass


CHILD = """
import asyncio, sys
from pathlib import Path
from moorage_local import state, valkey
async def main():
    with state.hold(Path(sys.argv[1])) as held:
        server = valkey.Valkey(held, valkey.ValkeySettings())
        await server.start()
        print(server.pid, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_it_ends_when_its_parent_is_killed_and_the_folder_can_be_used_again(tmp_path: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, str(tmp_path / "s"), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    pid = int(await asyncio.wait_for(child.stdout.readline(), 20))
    child.kill()
    await child.wait()
    until = time.monotonic() + 10
    while processes.identify(pid) is not None:
        assert time.monotonic() < until, "Valkey outlived its parent"
        await asyncio.sleep(0.02)
    with state.hold(tmp_path / "s") as held:
        async with valkey.running(held) as server:
            assert server.pid != pid


async def test_a_server_left_behind_is_ended_before_a_new_one_starts(tmp_path: Path) -> None:
    left = await asyncio.create_subprocess_exec("sleep", "60")
    identity = processes.identify(left.pid)
    assert identity is not None
    with state.hold(tmp_path / "s") as held:
        held.remember("valkey", [identity])
        async with valkey.running(held):
            assert await asyncio.wait_for(left.wait(), 5) != 0


async def test_a_reused_pid_is_left_alone(tmp_path: Path) -> None:
    other = await asyncio.create_subprocess_exec("sleep", "60")
    with state.hold(tmp_path / "s") as held:
        held.remember("valkey", [processes.ProcessId(other.pid, 1)])
        async with valkey.running(held):
            assert other.returncode is None and processes.identify(other.pid) is not None
    other.kill()
    await other.wait()


async def test_a_failed_start_shows_the_log(tmp_path: Path) -> None:
    with state.hold(tmp_path / "s") as held:
        server = valkey.Valkey(held, valkey.ValkeySettings(max_memory="nonsense"))
        with pytest.raises(valkey.ValkeyError, match="(?s)ended with code.*nonsense"):
            await server.start()
