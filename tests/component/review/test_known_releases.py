"""The facts that are known of two real releases, found by the engine on the real files of the package index."""

import os
import re
from pathlib import Path

import pytest
from review import conversation
from review.model import Report

pytestmark = [pytest.mark.provider, pytest.mark.index]
VERBS = ("delete", "get", "head", "options", "patch", "post", "put", "request", "stream")


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Report]:
    workspace: Path = tmp_path_factory.mktemp("workspace")
    world = conversation.World.from_environment(os.environ)
    text = "".join(conversation.answer("Review pypi:httpx 0.27.2..0.28.1", workspace, world))
    report = conversation.last_report(workspace)
    assert report is not None, text
    return text, report


def removed(report: Report, symbol: str) -> set[str]:
    return {
        found.group(1)
        for b in report.api.breakages
        if b.symbol == symbol and b.kind == "parameter removed" and (found := re.match(r"parameter `(\w+)`", b.text))
    }


def test_the_real_releases_were_read_and_not_the_sample(answered):
    text, report = answered
    assert report.subject.notice is None
    assert "httpx-0.27.2.tar.gz" in report.subject.old.read
    assert "sha256 `75e98c5f16b0…`, verified" in report.subject.new.read
    assert re.findall(r"^## .*$", text, re.M) == ["## Test coverage", "## New dependencies", "## Breaking API changes"]


def test_sniffio_was_dropped_and_nothing_was_added(answered):
    _, report = answered
    assert [(c.name, c.new) for c in report.dependencies.changes] == [("sniffio", None)]


def test_proxies_and_app_are_gone_from_the_clients(answered):
    text, report = answered
    assert removed(report, "httpx.Client.__init__") == {"proxies", "app"}
    assert removed(report, "httpx.AsyncClient.__init__") == {"proxies", "app"}
    assert "- `httpx.Client.__init__`: parameter `proxies` was removed" in text
    assert "- `httpx.Client.__init__`: parameter `app` was removed" in text


def test_proxies_and_cert_are_gone_from_the_functions(answered):
    text, report = answered
    for verb in VERBS:
        assert removed(report, f"httpx.{verb}") == {"proxies", "cert"}
    assert "- `httpx.get`: parameter `proxies` was removed" in text
    assert "- `httpx.get`: parameter `cert` was removed" in text


def test_other_breaking_changes_are_found_and_no_private_name_is_reported(answered):
    _, report = answered
    assert removed(report, "httpx.create_ssl_context") == {"http2"}
    assert {b.symbol for b in report.api.breakages if b.kind == "parameter moved"} == {
        "httpx.AsyncHTTPTransport.__init__",
        "httpx.HTTPTransport.__init__",
        "httpx.create_ssl_context",
    }
    assert not [b.symbol for b in report.api.breakages if "._" in b.symbol.replace(".__init__", "")]


def test_the_coverage_tells_tested_from_untested_functions(answered):
    _, report = answered
    reach = {c.symbol: c.reach for c in report.coverage.changes}
    assert report.coverage.test_files > 30
    assert reach["httpx._api.get"] == "named"
    assert reach["httpx._client.Client.__init__"] == "named"
    assert reach["httpx._client.Client._init_transport"] == "through"
    assert reach["httpx._multipart.DataField.render_headers"] == "unseen"


def test_the_same_releases_give_the_same_text(answered, tmp_path):
    world = conversation.World.from_environment(os.environ)
    assert "".join(conversation.answer("review httpx 0.27.2 to 0.28.1", tmp_path, world)) == answered[0]
