"""Makes `tools.jsonl`, `tuning.jsonl` and `titles.tsv` from API descriptions that two packages ship:
`python tests/bench/tool_search/corpus.py WHEEL TARBALL`.

WHEEL is google-api-python-client (Apache-2.0, Google), which carries a discovery document a service; TARBALL is the npm package
@octokit/openapi (MIT, GitHub). One version a service, every operation of it; nothing is worded anew. A line a tool: server, name,
description, parameters. `tuning.jsonl` has other services, and no tool of the first file. `titles.tsv` has what each service calls itself.
"""

from __future__ import annotations

import json
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).with_name("tools.jsonl")
TUNING = Path(__file__).with_name("tuning.jsonl")
TITLES = Path(__file__).with_name("titles.tsv")
LONGEST = 600  # characters of a description
SERVICES = (
    "blogger.v3 books.v1 calendar.v3 chat.v1 classroom.v1 cloudscheduler.v1 docs.v1 drive.v3 fcm.v1 forms.v1 gmail.v1 keep.v1 language.v2 "
    "meet.v2 pagespeedonline.v5 people.v1 places.v1 pubsub.v1 script.v1 searchconsole.v1 sheets.v4 slides.v1 sqladmin.v1 storage.v1 "
    "tasks.v1 texttospeech.v1 translate.v2 youtube.v3"
).split()
TAGS = frozenset(
    "activity checks emojis gists git gitignore issues licenses markdown pages pulls rate-limit repos search users".split()
)
TUNING_SERVICES = (
    "admin.directory_v1 analytics.v3 androidpublisher.v3 artifactregistry.v1 bigquery.v2 cloudbuild.v1 cloudfunctions.v2 cloudkms.v1 "
    "cloudresourcemanager.v3 cloudsupport.v2 cloudtasks.v2 dns.v1 driveactivity.v2 drivelabels.v2 fitness.v1 games.v1 "
    "groupssettings.v1 jobs.v4 mybusinessaccountmanagement.v1 mybusinessbusinessinformation.v1 licensing.v1 monitoring.v3 reseller.v1 "
    "run.v2 secretmanager.v1 smartdevicemanagement.v1 speech.v1 storagetransfer.v1 tagmanager.v2 vault.v1 vision.v1 walletobjects.v1 "
    "webfonts.v1 youtubeAnalytics.v2 content.v2.1 firebasehosting.v1beta1 notebooks.v2 file.v1"
).split()
TUNING_TAGS = frozenset(
    "actions apps billing campaigns code-scanning codespaces copilot dependabot gitignore interactions migrations orgs packages projects "
    "reactions secret-scanning security-advisories teams".split()
)


def google(wheel: Path, services: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Every method of these services."""
    for document in _documents(wheel, services):
        yield from _methods(document["name"], document.get("schemas", {}), document)


def _documents(wheel: Path, services: Sequence[str]) -> Iterator[dict[str, Any]]:
    with zipfile.ZipFile(wheel) as files:
        for service in services:
            yield json.loads(files.read(f"googleapiclient/discovery_cache/documents/{service}.json"))


def _methods(server: str, schemas: dict[str, Any], node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for method in node.get("methods", {}).values():
        body = schemas.get(method.get("request", {}).get("$ref"), {}).get("properties", {})
        names = [name for name in (*method.get("parameters", {}), *body) if not name.startswith("$")]
        name = method["id"].partition(".")[2].replace(".", "_")
        if not method.get("description", "").startswith("Deprecated"):
            yield _tool(server, name, method.get("description", ""), names)
    for inner in node.get("resources", {}).values():
        yield from _methods(server, schemas, inner)


def github(tarball: Path, tags: frozenset[str]) -> Iterator[dict[str, Any]]:
    """Every operation under one of these tags."""
    document = _described(tarball)
    shared = document["components"]["parameters"]
    for path in document["paths"].values():
        for method, operation in path.items():
            if method not in ("get", "post", "put", "patch", "delete") or not tags & set(operation.get("tags", ())):
                continue
            given = [
                shared[each["$ref"].rpartition("/")[2]] if "$ref" in each else each
                for each in operation.get("parameters", ())
            ]
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            names = [*(each["name"] for each in given), *body.get("properties", {})]
            text = f"{operation['summary']}. {operation.get('description', '')}"
            yield _tool("github", re.sub(r"\W+", "_", operation["operationId"]), text, names)


def _described(tarball: Path) -> Any:
    with tarfile.open(tarball) as files:
        read = files.extractfile("package/generated/api.github.com.json")
        assert read is not None
        return json.load(read)


def titles(wheel: Path, tarball: Path) -> dict[str, str]:
    """What each service calls itself."""
    found = {each["name"]: each["title"] for each in _documents(wheel, (*SERVICES, *TUNING_SERVICES))}
    return found | {"github": _described(tarball)["info"]["title"]}


def _tool(server: str, name: str, description: str, parameters: list[str]) -> dict[str, Any]:
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", description)
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]+>|[`*>]|\[!\w+\]", " ", plain)).strip()
    return {
        "server": server,
        "name": name,
        "description": plain[:LONGEST],
        "parameters": list(dict.fromkeys(parameters))[:24],
    }


def write(file: Path, tools: Sequence[dict[str, Any]]) -> None:
    """A line a tool."""
    with file.open("w", encoding="utf-8") as lines:
        for tool in tools:
            lines.write(json.dumps(tool, ensure_ascii=False) + "\n")
    print(f"{len(tools)} tools")


def main() -> None:
    """The command line."""
    wheel, tarball = map(Path, sys.argv[1:])
    found = [*google(wheel, SERVICES), *github(tarball, TAGS)]
    write(TOOLS, found)
    lines = (f"{server}\t{title}\n" for server, title in sorted(titles(wheel, tarball).items()))
    TITLES.write_text("".join(lines), encoding="utf-8")
    asked = {(tool["server"], tool["name"]) for tool in found}
    others = {
        (tool["server"], tool["name"]): tool
        for tool in (*google(wheel, TUNING_SERVICES), *github(tarball, TUNING_TAGS))
    }
    write(TUNING, [tool for name, tool in others.items() if name not in asked])


if __name__ == "__main__":
    main()
