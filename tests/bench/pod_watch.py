"""What a watch tells of an agent's pods, with the time at which it told. Layer: I/O rim."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from bench.milestones import Change, change

LINE = '{.metadata.name}{" "}{.status.conditions[?(@.type=="Ready")].status}{"\\n"}'
END_SECONDS = 10.0


@contextlib.contextmanager
def watching(kubeconfig: Path, namespace: str, selector: str) -> Iterator[list[Change]]:
    """Fills the list until the end of the block."""
    command = [
        "kubectl", "--kubeconfig", str(kubeconfig), "get", "pods", "-n", namespace, "-l", selector, "--watch",
        "-o", f"jsonpath={LINE}",
    ]  # fmt: skip
    found: list[Change] = []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            one = change(line, time.time() * 1000)
            if one is not None:
                found.append(one)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield found
    finally:
        process.terminate()
        process.wait(END_SECONDS)
        reader.join(END_SECONDS)
        if process.stdout is not None:
            process.stdout.close()
