"""What the platform prints about its isolation is true: what it says is limited is, and what it says is not, is not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from fakes.isolated_agents import REQUIRED, need_isolation
from fakes.platform import started
from fakes.prober import Prober

pytestmark = pytest.mark.isolation


def said(world: Any) -> tuple[dict[str, str], list[str]]:
    """(resource → how it is kept, sentences about what is not) as printed at the start."""
    text = world.platform.log.read_text()
    line = re.search(r"  isolation  isolated \((.*)\)\n((?: {13}.*\n)*)", text)
    assert line is not None, text
    limits = dict(one.split(" by ", 1) for one in line.group(1).split(", "))
    return limits, [one.strip() for one in line.group(2).splitlines()]


def memory(prober: Prober) -> bool:
    """Processes of one sandbox together over its memory: one of them dies."""
    return bool(
        prober.tell(
            "claims-memory-1",
            """
            import subprocess, sys, time
            eat = "import time; held = bytearray(b'x' * (60 << 20)); time.sleep(3)"
            eaters = [subprocess.Popen([sys.executable, "-c", eat]) for _ in range(3)]
            result = any(one.wait() == -9 for one in eaters)
            """,
        )
    )


def pids(prober: Prober) -> bool:
    """`spec.resources.pids` is 64."""
    made = prober.tell(
        "claims-pids-001",
        """
        import subprocess
        held = []
        try:
            for _ in range(200):
                held.append(subprocess.Popen(["sleep", "20"]))
        except OSError:
            pass
        result = len(held)
        for one in held:
            one.kill()
            one.wait()
        """,
    )
    return int(made) < 64


def tmp(prober: Prober) -> bool:
    """`spec.resources.ephemeralStorage` is 32Mi."""
    answer = prober.tell(
        "claims-tmp-0001",
        """
        import os
        result = "no limit"
        try:
            with open("/tmp/big", "wb") as file:
                for _ in range(40):
                    file.write(b"x" * (1 << 20))
        except OSError as fault:
            result = fault.strerror
        os.unlink("/tmp/big")
        """,
    )
    return str(answer) == "No space left on device"


def files(prober: Prober) -> bool:
    """Open files, and the size of one."""
    seen = prober.tell(
        "claims-files-01",
        "import resource; result = [resource.getrlimit(resource.RLIMIT_NOFILE)[1], resource.getrlimit(resource.RLIMIT_FSIZE)[1]]",
    )
    return 0 < seen[0] <= 65_536 and seen[1] == 48 << 20


def core(prober: Prober) -> bool:
    """No core dumps."""
    told = "import resource; result = resource.getrlimit(resource.RLIMIT_CORE)[1]"
    return int(prober.tell("claims-files-01", told)) == 0


def cpu(prober: Prober) -> bool:
    """`spec.resources.cpu` is 500m."""
    share = prober.tell(
        "claims-cpu-0001",
        """
        import time
        began, spent = time.time(), time.process_time()
        while time.time() - began < 2:
            pass
        result = (time.process_time() - spent) / (time.time() - began)
        """,
    )
    return float(share) < 0.7


def namespaces(prober: Prober) -> bool:
    """Its own processes and its own network are all it has (test_reach.py says more)."""
    told = "import os, socket; result = [os.getppid(), [n for _, n in socket.if_nameindex()]]"
    return bool(prober.tell("claims-files-01", told) == [1, ["lo"]])


def disk_is_measured_only(prober: Prober) -> bool:
    """More than `spec.workspace.size` (48Mi) can be had for a moment: the kernel does not refuse it."""
    told = """
        import os
        for n in range(3):
            with open(f"/workspace/part-{n}", "wb") as file:
                os.posix_fallocate(file.fileno(), 0, 20 << 20)
        result = sum(os.stat(f"/workspace/part-{n}").st_blocks * 512 for n in range(3))
        for n in range(3):
            os.unlink(f"/workspace/part-{n}")
    """
    return int(prober.tell("claims-disk-001", told)) >= 60 << 20


LIMITS = {
    "memory": memory,
    "pids": pids,
    "tmp": tmp,
    "files": files,
    "core": core,
    "cpu": cpu,
    "network": namespaces,
    "processes": namespaces,
}


def test_every_limit_that_is_printed_holds(world: Any) -> None:
    limits, _ = said(world)
    assert set(limits) <= set(LIMITS), "a limit that is printed has its test here"
    for name, how in limits.items():
        if (name, how) == ("memory", "rlimit"):
            continue  # then it holds for each process only, and a sentence says so
        assert LIMITS[name](world.prober), f"{name} by {how}"


def test_every_sentence_about_what_is_not_limited_is_true(world: Any) -> None:
    limits, sentences = said(world)
    assert sentences, "disk use is always one of them"
    for sentence in sentences:
        if sentence.startswith("Disk use of /workspace and $HOME is measured"):
            assert disk_is_measured_only(world.prober)
        elif sentence.startswith("CPU is not limited"):
            assert not cpu(world.prober)
        elif sentence.startswith("Memory is limited for each process"):
            assert not memory(world.prober)
        elif sentence.startswith("The number of processes is limited by rlimit, for a sandbox"):
            assert limits["pids"] == "rlimit" and pids(world.prober)
        else:
            assert sentence.startswith("For control groups run under"), sentence


def test_without_isolation_the_platform_warns_and_these_tests_fail_where_it_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started(tmp_path, "--plain") as platform:
        text = platform.log.read_text()
        assert "NOT ISOLATED" in text and "Agents see the files, processes and network" in text
        monkeypatch.setenv(REQUIRED, "1")
        with pytest.raises(pytest.fail.Exception, match="no isolated mode"):
            need_isolation(platform)
        monkeypatch.delenv(REQUIRED)
        with pytest.raises(pytest.skip.Exception):
            need_isolation(platform)
