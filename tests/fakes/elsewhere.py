"""A platform that somebody else started: agents in the pods of a cluster, gateway and node on this machine.

Described by a JSON file: url, api_key, gateway_pid, kubeconfig, namespace, volumes (the folder of all workspaces), store (a folder) or
s3 (endpoint, bucket, access_key, secret_key), collector_port. Limits: it is not started, ended, or given further gateways from here.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from minio import Minio

from fakes.objects import FolderObjects, Objects, S3Objects, bytes_of, files_below
from fakes.platform import Platform


class Elsewhere(Platform):
    """`Platform`, as far as it is not a process of ours."""

    local = False

    def __init__(self, told: dict[str, Any]) -> None:
        self.url, self.api_key, self.gateways = told["url"], told["api_key"], []
        self._told = told

    def __repr__(self) -> str:
        return f"Elsewhere({self.url})"

    @classmethod
    def described(cls, file: Path) -> Elsewhere:
        """The one that the file tells of."""
        return cls(json.loads(file.read_text()))

    @property
    def gateway_pid(self) -> int:
        return int(self._told["gateway_pid"])

    @property
    def collector_port(self) -> int:
        """Where it sends its spans."""
        return int(self._told["collector_port"])

    @property
    def stored(self) -> Objects:
        if (at := self._told.get("s3")) is None:
            return FolderObjects(Path(self._told["store"]))
        client = Minio(
            urlsplit(at["endpoint"]).netloc, at["access_key"], at["secret_key"], secure=False, region=at["region"]
        )
        return S3Objects(client, at["bucket"])

    def holding(self, secret: bytes) -> list[str]:
        stored, kept = self.stored, Path(self._told["volumes"])
        found = [name for name in stored.names() if secret in stored.read(name)]
        return found + [str(path) for path in files_below(kept) if secret in bytes_of(path)]

    def workspace_files(self, name: str) -> list[Path]:
        return [path for path in files_below(Path(self._told["volumes"])) if path.name == name]

    def kill_sandbox(self, agent: str, session: str) -> None:
        """SIGKILL to every process of the session's pod but the one that holds its network; the node's processes are this machine's."""
        (held,) = [one["sandbox"]["id"] for one in self.sessions(agent) if one["id"] == session and one["sandbox"]]
        by = ["kubectl", "--kubeconfig", self._told["kubeconfig"], "-n", self._told["namespace"]]
        named = ["-l", f"moorage.dev/sandbox={held}", "-o", "jsonpath={.items[*].metadata.uid}"]
        done = subprocess.run([*by, "get", "pods", *named], capture_output=True, text=True, timeout=30, check=True)
        (uid,) = done.stdout.split()
        hit = [pid for pid in _processes(uid) if _program(pid) != "/pause"]
        assert hit, f"pod {uid} has no process"
        for pid in hit:
            with contextlib.suppress(ProcessLookupError):  # it ended with one that was hit before
                os.kill(pid, signal.SIGKILL)

    def pids(self, agent: str, session: str, **options: Any) -> NoReturn:
        raise AssertionError("pods tell no pids")


def _processes(uid: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            groups = (entry / "cgroup").read_text() if entry.name.isdigit() else ""
        except OSError:
            continue  # it ended meanwhile
        if uid in groups or uid.replace("-", "_") in groups:
            found.append(int(entry.name))
    return found


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
    except OSError:
        return ""
