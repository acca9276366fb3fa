"""Log lines: bounded, in order, never a reason for the agent to stop."""

import json
import os
from collections.abc import Iterator

import pytest

from moorage_sandbox.output import BURST, RATE, TAIL_BYTES, TAIL_LINE, TAIL_LINES, Console, Lines, Output

pytestmark = pytest.mark.unit


class Still:
    def now(self) -> float:
        return 0.0

    def wall_ms(self) -> int:
        return 1_700_000_000_000


def test_lines_are_cut_at_their_bound_and_nothing_is_lost():
    lines = Lines(4)
    assert lines.feed(b"ab") == []
    assert lines.feed(b"c\r\n\nabcdefghij") == ["abc", "", "abcd", "efgh"]
    assert lines.rest() == ["ij"]


def test_bytes_that_are_no_text_become_text():
    assert Lines(100).feed(b"\xff\xfe\n") == ["\ufffd\ufffd"]


def test_the_tail_keeps_the_last_lines_within_its_bounds():
    output = Output(None, "sb", clock=Still(), max_file=100)
    output.agent([f"line {n}" for n in range(200)])
    assert output.tail()[-1] == "line 199"
    assert len(output.tail()) == TAIL_LINES
    output.agent(["é" * 10_000] * 60)
    assert sum(len(line.encode()) for line in output.tail()) <= TAIL_BYTES
    assert len(output.tail()[-1]) == TAIL_LINE


def test_the_file_rotates_at_its_size(tmp_path):
    path = tmp_path / "log"
    output = Output(str(path), "sb", clock=Still(), max_file=2000)
    output.session = "s"
    for number in range(40):
        output.agent([f"line {number}"])
    output.close()
    files = [file.read_text() for file in (tmp_path / "log.1", path) if file.exists()]
    kept = [json.loads(line) for line in "".join(files).splitlines()]
    assert kept[-1] == {
        "ts": "2023-11-14T22:13:20.000+00:00", "stream": "stdout", "session": "s", "sandbox": "sb", "line": "line 39",
    }  # fmt: skip
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 4400


def test_a_log_that_cannot_be_written_is_counted_and_no_error(tmp_path):
    output = Output(str(tmp_path / "no" / "folder"), "sb", clock=Still(), max_file=2000)
    output.agent(["a", "b"])
    assert output.dropped == 2
    assert output.tail() == ["a", "b"]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A blocking one, as a container's stdout: whoever writes more than it holds waits for ever."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_without_a_file_lines_go_to_the_console(pipe):
    output = Output(None, "sb", clock=Still(), max_file=2000, console=Console(pipe[1], Still()))
    output.agent(["a", "b"])
    output.shim("c")
    seen = [json.loads(line) for line in os.read(pipe[0], 1 << 16).splitlines()]
    assert [(one["stream"], one["line"]) for one in seen] == [("stdout", "a"), ("stdout", "b"), ("shim", "c")]
    output.close()
    output.agent(["d"])
    assert os.get_blocking(pipe[1]) and output.dropped == 0


def test_what_an_agent_prints_steers_no_terminal_and_forges_no_line(pipe):
    output = Output(None, "sb", clock=Still(), max_file=2000, console=Console(pipe[1], Still()))
    said = "\x1b[2J \x7f \x85 \x9b31m \x9d0;title\x9c \u2028 {} \u202etxt \u2069 \xa0 \u00bb \u2027 \u20ac \r ende"
    output.agent([said])
    seen = os.read(pipe[0], 1 << 16).decode()
    (line,) = seen.splitlines()
    assert all(each.isprintable() or each == "\xa0" for each in line)
    assert "\u20ac" in line and json.loads(line)["line"] == said


def test_a_console_that_nobody_reads_is_not_waited_for_and_no_line_of_it_is_torn(pipe):
    output = Output(None, "sb", clock=Still(), max_file=2000, console=Console(pipe[1], Still()))
    for number in range(40):
        output.agent([f"{number} " + "x" * 5_000])
    assert 0 < output.dropped < 40
    seen = b""
    while output.dropped < 60:  # read now and then, as by somebody slow
        seen += os.read(pipe[0], 7_000)
        output.agent(["y" * 20_000])
    for _ in range(2):  # what was begun is ended first
        seen += os.read(pipe[0], 1 << 20)
        output.agent(["z"])
    seen += os.read(pipe[0], 1 << 20)
    told = [json.loads(line)["line"] for line in seen.splitlines()]
    assert told[0].startswith("0 ") and any(line.startswith("y") for line in told) and told[-1] == "z"
    missing = [int(line.split()[0]) for line in told if "missing here" in line]
    assert sum(missing) == output.dropped, "every gap is told where it is"


class Moved(Still):
    """A clock that a test moves."""

    seconds = 0.0

    def now(self) -> float:
        return self.seconds


def test_a_flood_is_bounded_and_tells_what_is_missing(tmp_path):
    clock = Moved()
    with (tmp_path / "stdout").open("wb") as file:
        output = Output(None, "sb", clock=clock, max_file=2000, console=Console(file.fileno(), clock))
        output.agent(["x" * 8_000] * 2_000)
        once = (tmp_path / "stdout").stat().st_size
        assert BURST - 20_000 < once <= BURST and output.dropped > 900
        clock.seconds += 1
        output.agent(["x" * 8_000] * 2_000)
        assert RATE - 20_000 < (tmp_path / "stdout").stat().st_size - once <= RATE
        clock.seconds += 60
        output.agent(["calm"])
    told = [json.loads(line)["line"] for line in (tmp_path / "stdout").read_text().splitlines()]
    assert told[-1] == "calm" and sum(int(line.split()[0]) for line in told if "missing here" in line) == output.dropped


def test_a_console_whose_reader_is_gone_is_no_error():
    read, write = os.pipe()
    os.close(read)
    output = Output(None, "sb", clock=Still(), max_file=2000, console=Console(write, Still()))
    output.agent(["a"])
    assert output.dropped == 1
    os.close(write)
