"""CPU and memory out of the texts of /proc, and children that are ended by their own pid."""

from __future__ import annotations

import os
import sys

import pytest

from bench import processes

pytestmark = pytest.mark.unit

STAT = "41 (a ) b) S 1 41 41 0 -1 4194560 900 0 0 0 {user} {system} 7 8 20 0 1 0 55 1000 200 18446744073709551615"


def test_cpu_is_user_and_system_time_even_when_the_name_holds_brackets() -> None:
    ticks = processes.TICKS
    assert processes.cpu_of(STAT.format(user=3 * ticks, system=ticks)) == 4.0


def test_memory_is_read_by_the_exact_name_of_its_line() -> None:
    text = "Rss:              10 kB\nPss:               7 kB\nPss_Dirty:         3 kB\n"
    assert processes.kilobytes_of(text, "Pss") == 7
    with pytest.raises(KeyError):
        processes.kilobytes_of(text, "VmRSS")


def test_this_process_has_spent_cpu_and_holds_memory() -> None:
    assert processes.cpu([os.getpid()]) > 0
    assert processes.rss(os.getpid()) >= processes.pss(os.getpid()) > 0
    assert processes.tree(os.getpid())[0] == os.getpid()


def test_a_child_runs_on_its_core_and_ours_stay_as_they_were() -> None:
    before, (load, subject) = os.sched_getaffinity(0), processes.cores()
    child = processes.start([sys.executable, "-c", "import sys; sys.stdin.read()"], core=subject, stdin=-1)
    try:
        assert os.sched_getaffinity(child.pid) == {subject}
        assert os.sched_getaffinity(0) == before
    finally:
        processes.end(child)
    assert child.returncode is not None and load in before
