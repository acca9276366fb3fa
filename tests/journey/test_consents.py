"""A tool that acts with its user's own account: asked through the stock `openai` client, called by the stock `mcp` client, allowed in a
browser that the test plays, kept over a restart of the platform, ended by the CLI."""

from __future__ import annotations

import re
import shutil
import tempfile
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import openai
import pytest

from fakes import authorization
from fakes.commands import Commands
from fakes.objects import bytes_of, files_below
from fakes.platform import poll, started
from fakes.tools import serving

pytestmark = [pytest.mark.journey, pytest.mark.index, pytest.mark.timeout(300)]

AGENT = Path(__file__).with_name("tools_agent")
SECRET = "client-secret-canary"
MANIFEST = """
apiVersion: moorage.dev/v1alpha1
kind: HostedAgent
metadata: {{name: clerk}}
spec:
  source: {{path: ., entrypoint: host.py}}
  pool: {{min: 1, max: 8}}
  toolboxes: [desk]
---
apiVersion: moorage.dev/v1alpha1
kind: Toolbox
metadata: {{name: desk}}
spec:
  upstreams:
    - name: mine
      mcp: {{url: "{tools}"}}
      oauth:
        grant: authorizationCode
        authorizationUrl: {auth}/authorize
        tokenUrl: {auth}/token
        revocationUrl: {auth}/revoke
        clientId: moorage
        clientSecret: {{secret: mine, key: client-secret}}
"""


def consent(link: str) -> str:
    """What a person does in a browser; what it shows in the end."""
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    page = browser.open(link, timeout=30).read().decode()
    found = re.search(r'name="check" value="([0-9a-f]+)"', page)
    assert found is not None, page
    # It follows every redirect: to the authorization server, and back.
    return str(browser.open(link, urlencode({"check": found[1]}).encode(), timeout=30).read().decode())


def say(api: openai.OpenAI, text: str, **more: Any) -> Any:
    return api.responses.create(model="clerk", input=text, **more)


def test_a_user_consents_and_their_account_is_used(tmp_path: Path) -> None:
    folder, keys = tmp_path / "folder", ("--credentials", str(tmp_path / "keys"))
    (tmp_path / "keys" / "mine").mkdir(parents=True)
    (tmp_path / "keys" / "mine" / "client-secret").write_text(SECRET)
    shutil.copytree(AGENT, folder / "clerk", ignore=shutil.ignore_patterns("__pycache__"))
    with (
        serving("new") as tools,
        authorization.serving(SECRET) as auth,
        tempfile.TemporaryDirectory(prefix="mp-", ignore_cleanup_errors=True) as scratch,
    ):
        state = Path(scratch) / "s"
        tools.tokens = auth.accepted
        (folder / "clerk" / "agent.yaml").write_text(MANIFEST.format(tools=tools.url, auth=auth.url))
        with started(folder, *keys, state=state) as platform, platform.client("clerk", timeout=120) as api:
            poll("the agent serves", lambda: platform.agents, within=240)
            auth.redirects.add(f"{platform.url}/v1/oauth/callback")
            *_, last = list(say(api, "call put one", stream=True))
            first = last.response
            assert last.type == "response.completed" and first.output_text.startswith(
                "[consent_required: 'put' was not"
            )
            item: Any = first.output[-1]
            assert item.type == "oauth_consent_request" and item.server_label == "desk" and item.id.startswith("oacr_")
            assert item.consent_link in first.output_text and tools.times("one") == 0
            assert "Allowed" in consent(item.consent_link)
            second = say(api, "call put one", previous_response_id=first.id)
            assert second.output_text.strip().endswith("one") and tools.times("one") == 1
            assert [each.type for each in second.output] == ["message"]
        with started(folder, *keys, state=state) as platform, platform.client("clerk", timeout=120) as api:
            assert say(api, "call put two").output_text.strip().endswith("two"), "nobody is asked again"
            run = Commands(platform.url, platform.api_key, tmp_path).run
            assert "mine" in run("toolboxes", "consent", "list").out
            assert "no more" in run("toolboxes", "consent", "revoke", "desk", "mine").err
            assert "No consents" in (ended := run("toolboxes", "consent", "list")).out + ended.err
            assert "consent_required" in say(api, "call put three").output_text and tools.times("three") == 0
        assert len(auth.revoked) == 1
        for path in files_below(state):
            held = bytes_of(path)
            for secret in (authorization.ACCESS, authorization.REFRESH, authorization.CODE, SECRET):
                assert secret.encode() not in held, path
