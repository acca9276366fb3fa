"""Relayed requests: passed through as they are, both ways, at the pace of the slower side (F33, F35)."""

import asyncio
import json
import os
import socket

import pytest

from fakes.shim_world import SECRET, SESSION, World, until
from moorage_api.wire.hop import HopError, HopPool

pytestmark = pytest.mark.component


@pytest.fixture
async def world(tmp_path):
    async with World(tmp_path) as made:
        await made.bind()
        yield made


async def test_head_and_target_arrive_without_what_belongs_to_one_hop(world):
    answer = await world.relay("GET", "/headers?a=b%20c&d", **{"x-own": "1", "connection": "x-listed", "x-listed": "2"})
    seen = json.loads(await answer.read(10_000))
    found = dict(seen["headers"])
    assert seen["target"] == "/headers?a=b%20c&d"
    assert found["x-own"] == "1"
    assert found["x-moorage-session"] == "session-1234"
    assert found["x-agent-user-id"] == "ada"
    assert not {"x-moorage-secret", "x-listed"} & set(found)


async def test_an_agents_own_refusal_is_told_from_the_shims(world):
    for path, status, said in (("/refuse", 503, b"agent"), ("/headers", 200, None)):
        answer = await world.relay("GET", path)
        await answer.read(10_000)
        assert (answer.status, dict(answer.headers).get(b"x-moorage-answered")) == (status, said)


async def test_chunks_of_the_agent_arrive_one_by_one(world):
    answer = await world.relay("GET", "/drip?3")
    for number in range(3):
        world.pass_gate(str(number))
        assert await answer.next_chunk(idle=5) == b"drop %d" % number
    assert await answer.next_chunk(idle=5) == b""


async def test_a_body_streams_up_and_down_at_once(world):
    pieces: asyncio.Queue[bytes] = asyncio.Queue()

    async def body():
        while piece := await pieces.get():
            yield piece

    await pieces.put(b"one")
    answer = await world.relay("POST", "/mirror", body())
    assert dict(answer.headers)[b"x-kept"] == b"1"
    assert await answer.next_chunk(idle=5) == b"one"
    await pieces.put(b"two")
    assert await answer.next_chunk(idle=5) == b"two"
    await pieces.put(b"")
    assert await answer.next_chunk(idle=5) == b""


async def test_a_large_body_comes_through_whole(world):
    sent = os.urandom(3_000_000)
    answer = await world.relay("POST", "/mirror", sent)
    assert await answer.read(4_000_000) == sent


async def test_a_slow_reader_stops_the_whole_line(world):
    size = 0

    async def endless():
        nonlocal size
        while size < 200_000_000:
            size += 65536
            yield b"x" * 65536

    answer = await world.relay("POST", "/mirror", endless())
    await answer.next_chunk(idle=5)
    last = -1
    while size != last:  # until the sender stands still
        last = size
        await asyncio.sleep(0.2)
    assert size < 40_000_000  # what the kernel's socket buffers and the agent hold, with our own bounds; not the whole
    await answer.aclose()


async def test_a_client_that_leaves_ends_the_request_at_the_agent_within_a_second(world):
    asked = asyncio.create_task(world.relay("GET", "/hold"))
    await until(lambda: os.path.exists(world.gate("held")))
    asked.cancel()
    await until(lambda: os.path.exists(world.gate("left")), 1)
    assert (await world.status_page())["relays"] == 0


async def test_a_client_that_leaves_behind_unread_bytes_is_noticed_too(world):
    """Reading is paused then, so the end of the connection does not show by itself."""
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, world.config.endpoint[5:])
    head = f"POST /relay/hold HTTP/1.1\r\nx-moorage-secret: {SECRET}\r\nx-moorage-session: {SESSION}\r\n"
    await loop.sock_sendall(sock, f"{head}x-moorage-epoch: 1\r\ncontent-length: 90000000\r\n\r\n".encode())
    await until(lambda: os.path.exists(world.gate("held")))
    await fill(sock)
    sock.close()
    await until(lambda: os.path.exists(world.gate("left")), 2)


async def fill(sock: socket.socket) -> None:
    """Writes until nobody takes more."""
    still = 0
    while still < 20:
        try:
            sock.send(b"x" * 65536)
            still = 0
        except BlockingIOError:
            still += 1
            await asyncio.sleep(0.01)


RUN = {"x-moorage-run-seconds": "60"}


async def run(world, path):
    """As a gateway sends it: over a connection of its own, once."""
    world.pool = HopPool(max_idle=0)
    return await world.relay("GET", path, **RUN)


async def test_a_run_that_is_given_up_ends_its_agent_and_the_next_one_gets_another(world):
    asked = asyncio.create_task(run(world, "/hold"))
    await until(lambda: os.path.exists(world.gate("held")))
    before = world.init.process
    asked.cancel()
    answer = await run(world, "/headers")
    seen = dict(json.loads(await answer.read(10_000))["headers"])
    assert answer.status == 200 and "x-moorage-run-seconds" not in seen
    assert before.poll() is not None and world.init.process is not before
    assert world.init.calls.index("term") < world.init.calls.index("killall")


async def test_a_run_takes_the_place_of_one_whose_gateway_is_gone_without_a_word(world):
    asked = asyncio.create_task(run(world, "/hold"))
    await until(lambda: os.path.exists(world.gate("held")))
    before = world.init.process
    assert (await run(world, "/headers")).status == 200
    with pytest.raises(HopError):
        await asked
    assert before.poll() is not None and world.init.process is not before


async def test_what_is_no_run_ends_no_agent(world):
    asked = asyncio.create_task(world.relay("GET", "/hold"))
    await until(lambda: os.path.exists(world.gate("held")))
    asked.cancel()
    await until(lambda: os.path.exists(world.gate("left")), 1)
    assert (await run(world, "/headers")).status == 200
    assert "killall" not in world.init.calls


async def test_an_agent_that_dies_before_its_answer_is_told_with_its_last_words(world):
    answer = await world.relay("GET", "/exit")
    told = json.loads(await answer.read(100_000))
    assert (answer.status, told["error"], told["status"]) == (502, "agent_exit", 9)


async def test_after_a_death_the_next_relay_gets_a_fresh_process(world):
    await (await world.relay("GET", "/exit")).read(100_000)
    answer = await world.relay("GET", "/headers")
    assert answer.status == 200
    await answer.read(100_000)
    assert world.init.calls.count("spawn") == 2


async def test_an_answer_that_breaks_off_is_passed_on_as_a_break(world):
    answer = await world.relay("GET", "/drip?2")
    world.pass_gate("0")
    assert await answer.next_chunk(idle=5) == b"drop 0"
    assert world.init.process is not None
    world.init.process.kill()
    with pytest.raises(ConnectionError):
        await answer.next_chunk(idle=5)
