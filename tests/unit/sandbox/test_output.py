"""Log lines: bounded, in order, never a reason for the agent to stop."""

import json

import pytest

from moorage_sandbox.output import TAIL_BYTES, TAIL_LINE, TAIL_LINES, Lines, Output

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
