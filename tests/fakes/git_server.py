"""A git server: git's own HTTP backend behind a plain HTTP server. Limits: reads only, no TLS."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_AUTHOR = {
    "GIT_AUTHOR_NAME": "t",
    "GIT_AUTHOR_EMAIL": "t@t.test",
    "GIT_COMMITTER_NAME": "t",
    "GIT_COMMITTER_EMAIL": "t@t.test",
}


class GitServer:
    """Repositories below `root`. `authority` is what URLs of it name."""

    def __init__(self, root: Path, authority: str) -> None:
        self._root = root
        self.authority = authority

    def url(self, name: str) -> str:
        """The address of a repository."""
        return f"http://{self.authority}/{name}.git"

    def commit(self, name: str, files: dict[str, str | bytes], *, branch: str = "main", tag: str = "") -> str:
        """Adds files to a branch; the commit."""
        bare, work = self._root / f"{name}.git", self._root / f"{name}.work"
        if not bare.exists():
            _git(self._root, "init", "-q", "--bare", "-b", "main", str(bare))
            _git(self._root, "clone", "-q", str(bare), str(work))
        _git(work, "checkout", "-q", "-B", branch)
        for file, content in files.items():
            place = work / file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content.encode() if isinstance(content, str) else content)
        _git(work, "add", "-A")
        _git(work, "commit", "-q", "-m", "a commit")
        if tag:
            _git(work, "tag", "-a", tag, "-m", "a tag")
        _git(work, "push", "-q", "--tags", "-f", "origin", branch)
        return _git(work, "rev-parse", "HEAD").strip()


@contextlib.contextmanager
def git_server(root: Path, host: str = "127.0.0.1", name: str = "127.0.0.1") -> Iterator[GitServer]:
    """Serves at an address of this machine until the end of the block; URLs call it `name`."""

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            env = {
                **os.environ,
                "GIT_PROJECT_ROOT": str(root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("content-type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""),
                "GIT_PROTOCOL": self.headers.get("git-protocol", ""),
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
            }
            done = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, check=False)
            head, _, data = done.stdout.partition(b"\r\n\r\n")
            fields = [line.partition(": ")[::2] for line in head.decode().splitlines()]
            status = next((int(text.split()[0]) for name, text in fields if name.lower() == "status"), 200)
            self.send_response(status)
            for name, text in fields:
                if name.lower() != "status":
                    self.send_header(name, text)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _serve

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer((host, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
    thread.start()
    try:
        yield GitServer(root, f"{name}:{server.server_address[1]}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=folder, env={**os.environ, **_AUTHOR}, check=True, capture_output=True, text=True
    ).stdout
