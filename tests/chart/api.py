"""A fake API server for helm's `lookup`: it says that it has the kinds of some objects, and holds the Secrets among them.

Limits: reads only, no authentication, plurals by an added s.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CLUSTER_WIDE = {"Namespace", "ClusterRole", "ClusterRoleBinding"}


def answers(objects: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Path → body of everything this server knows."""
    versions = sorted({each["apiVersion"] for each in objects} - {"v1"})
    groups = [{"groupVersion": each, "version": each.partition("/")[2]} for each in versions]
    found: dict[str, Any] = {
        "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.3"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {
            "kind": "APIGroupList",
            "groups": [
                {"name": one["groupVersion"].partition("/")[0], "versions": [one], "preferredVersion": one}
                for one in groups
            ],
        },
    }
    for version in ("v1", *versions):
        kinds = sorted({each["kind"] for each in objects if each["apiVersion"] == version})
        found[f"/api/{version}" if version == "v1" else f"/apis/{version}"] = {
            "kind": "APIResourceList",
            "groupVersion": version,
            "resources": [
                {
                    "name": f"{kind.lower()}s",
                    "kind": kind,
                    "namespaced": kind not in CLUSTER_WIDE,
                    "verbs": ["get", "list"],
                }
                for kind in kinds
            ],
        }
    for each in objects:
        if each["kind"] == "Secret":
            found["/api/v1/namespaces/{namespace}/secrets/{name}".format_map(each["metadata"])] = each
    return found


@contextlib.contextmanager
def serving(objects: Sequence[Mapping[str, Any]], folder: Path) -> Iterator[Path]:
    """The kubeconfig of such a server."""
    known = answers(objects)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = known.get(self.path.partition("?")[0])
            lost = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            body = json.dumps(lost if found is None else found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing: a test prints its own."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    place = {"server": f"http://127.0.0.1:{server.server_port}"}
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "fake", "users": [{"name": "fake", "user": {}}],
        "clusters": [{"name": "fake", "cluster": place}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
    }  # fmt: skip
    try:
        file = folder / "kubeconfig"
        file.write_text(json.dumps(config), encoding="utf-8")
        yield file
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
