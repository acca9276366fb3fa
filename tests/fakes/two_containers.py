"""Launcher and shim as a pod's two containers run them: two programs that share a folder with a socket, and nothing else.

Limits: one machine, plain processes, the scripted agent; nobody is a first process, and no cgroup counts anything.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from fakes.ports import free_port
from fakes.shim_world import SECRET
from moorage_operator.objects import FIRST
from moorage_sandbox.config import ShimConfig

FAKES = Path(__file__).parent
SANDBOX = "sb-pod"


class TwoContainers:
    """The two processes on one machine; plain, for they are nobody's first process here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "run" / "init.sock"
        self.endpoint = f"http://127.0.0.1:{free_port()}"
        self._started: list[subprocess.Popen[bytes]] = []
        for name in ("run", "code", "home", "workspace", "volume"):
            (folder / name).mkdir()
        source = (FAKES / "scripted_agent.py").read_text()
        start = 'if __name__ == "__main__":\n'
        (folder / "code" / "main.py").write_text(
            source.replace(start, f"{start}    import moorage_forkpoint\n    moorage_forkpoint.wait()\n")
        )

    def agent(self, *more: str) -> subprocess.Popen[bytes]:
        """The agent's container."""
        command = [
            sys.executable, "-c", FIRST, "60", self.folder / "launcher", "pod", "--socket", self.socket, "--code", self.folder / "code",
            "--sandbox", SANDBOX, "--home", self.folder / "home", "--workspace", self.folder / "workspace", "--shim-port", "0",
            *more,
        ]  # fmt: skip
        return self._start(command)

    def shim(self, **more: Any) -> subprocess.Popen[bytes]:
        """The shim's container: its configuration names no address, which only the running pod knows. `more`: ShimConfig's fields."""
        fields = {"tenant": "t", "agent": "a", "revision": "r1", "secret": SECRET, "token": "k", **more}
        config = ShimConfig(sandbox=SANDBOX, endpoint="", volume=str(self.folder / "volume"), **fields)
        path = self.folder / "shim.json"
        path.write_text(config.to_json())
        return self._start(
            [sys.executable, "-m", "moorage_sandbox", "--config", path, "--endpoint", self.endpoint, "--control-socket", self.socket,
             "--launcher", self.folder / "launcher"]
        )  # fmt: skip

    def printed(self) -> str:
        """What the containers have printed so far, as `kubectl logs` would show it."""
        return (self.folder / "stdout").read_text("utf-8")

    def _start(self, command: list[str | Path]) -> subprocess.Popen[bytes]:
        with (self.folder / "stdout").open("ab") as stdout:
            process = subprocess.Popen([str(part) for part in command], stdout=stdout, stderr=subprocess.PIPE)
        self._started.append(process)
        return process

    def close(self) -> None:
        """Ends both."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()
            assert process.stderr is not None
            process.stderr.close()
