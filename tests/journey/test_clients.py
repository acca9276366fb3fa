"""The stock client in each of its forms does each operation: sync, async, Azure by endpoint and by base URL, with either credential."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
import pytest

from fakes.platform import Platform

pytestmark = pytest.mark.journey

QUICK: Any = {"model": "paced", "input": "4 words every 5 ms"}
SLOW: Any = {"model": "paced", "input": "200 words every 50 ms"}
FOUR = "w0 w1 w2 w3 "
VERSION = "2026-01-01"


def _plain(kind: Any, platform: Platform) -> Any:
    return kind(base_url=f"{platform.url}/v1/agents/paced", api_key=platform.api_key, max_retries=0)


def _azure(**options: Any) -> Callable[[Any, Platform], Any]:
    """An Azure client; `{agent}` in an option is the agent's address, `{key}` the API key."""

    def make(kind: Any, platform: Platform) -> Any:
        values = {"agent": f"{platform.url}/v1/agents/paced", "key": platform.api_key}
        given = {name: value.format(**values) for name, value in options.items()}
        return kind(api_version=VERSION, max_retries=0, **given)

    return make


FORMS = {
    "plain": (openai.OpenAI, openai.AsyncOpenAI, _plain),
    "azure endpoint, token": (
        openai.AzureOpenAI,
        openai.AsyncAzureOpenAI,
        _azure(azure_endpoint="{agent}", azure_ad_token="{key}"),
    ),
    "azure endpoint, api key, deployment": (
        openai.AzureOpenAI,
        openai.AsyncAzureOpenAI,
        _azure(azure_endpoint="{agent}", api_key="{key}", azure_deployment="any"),
    ),
    "azure base url": (
        openai.AzureOpenAI,
        openai.AsyncAzureOpenAI,
        _azure(base_url="{agent}", azure_ad_token="{key}"),
    ),
    "azure base url, openai path": (
        openai.AzureOpenAI,
        openai.AsyncAzureOpenAI,
        _azure(base_url="{agent}/openai/v1", api_key="{key}"),
    ),
    "foundry path": (
        openai.OpenAI,
        openai.AsyncOpenAI,
        lambda kind, platform: kind(
            base_url=f"{platform.url}/api/projects/p/agents/paced/endpoint/protocols/openai",
            api_key=platform.api_key,
            default_query={"api-version": "v1"},
            max_retries=0,
        ),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_sync_client_does_every_operation(platform: Platform, form: str) -> None:
    kind, _, make = FORMS[form]
    with make(kind, platform) as api:
        first = api.responses.create(**QUICK, metadata={"form": form}, extra_body={"agent_session_id": "forms-of-sync"})
        assert (first.output_text, first.metadata) == (FOUR, {"form": form})
        assert first.agent_session_id == "forms-of-sync"
        events = list(api.responses.create(**QUICK, stream=True, previous_response_id=first.id))
        assert [e.sequence_number for e in events] == list(range(len(events)))
        with api.responses.stream(**QUICK) as stream:
            assert stream.get_final_response().output_text == FOUR
        assert api.responses.retrieve(first.id).output_text == FOUR
        replay = list(api.responses.retrieve(first.id, stream=True, starting_after=3))
        assert replay[0].sequence_number == 4 and replay[-1].type == "response.completed"
        assert [i.content[0].text for i in api.responses.input_items.list(first.id, order="asc")] == [QUICK["input"]]
        background = api.responses.create(**SLOW, background=True)
        assert background.status in ("queued", "in_progress")
        assert api.responses.cancel(background.id).status == "cancelled"
        with pytest.raises(openai.NotFoundError):
            api.responses.retrieve(api.responses.create(**QUICK, store=False).id)
        api.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError):
            api.responses.retrieve(first.id)


@pytest.mark.parametrize("form", FORMS)
async def test_the_async_client_does_every_operation(platform: Platform, form: str) -> None:
    _, kind, make = FORMS[form]
    async with make(kind, platform) as api:
        first = await api.responses.create(**QUICK, extra_body={"agent_session_id": "forms-of-async"})
        assert first.output_text == FOUR and first.agent_session_id == "forms-of-async"
        events = [e async for e in await api.responses.create(**QUICK, stream=True, previous_response_id=first.id)]
        assert [e.sequence_number for e in events] == list(range(len(events)))
        async with api.responses.stream(**QUICK) as stream:
            assert (await stream.get_final_response()).output_text == FOUR
        assert (await api.responses.retrieve(first.id)).output_text == FOUR
        replay = [e async for e in await api.responses.retrieve(first.id, stream=True, starting_after=3)]
        assert replay[0].sequence_number == 4 and replay[-1].type == "response.completed"
        items = [i async for i in api.responses.input_items.list(first.id, order="asc")]
        assert [i.content[0].text for i in items] == [QUICK["input"]]
        background = await api.responses.create(**SLOW, background=True)
        assert (await api.responses.cancel(background.id)).status == "cancelled"
        with pytest.raises(openai.NotFoundError):
            await api.responses.retrieve((await api.responses.create(**QUICK, store=False)).id)
        await api.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError):
            await api.responses.retrieve(first.id)


def test_the_agent_is_named_by_reference_at_the_project_address(platform: Platform) -> None:
    base = f"{platform.url}/api/projects/p/openai/v1"
    with openai.OpenAI(base_url=base, api_key=platform.api_key, max_retries=0) as api:
        named = {"agent_reference": {"type": "agent_reference", "name": "paced"}}
        response = api.responses.create(input="2 words every 5 ms", extra_body=named)
        assert response.output_text == "w0 w1 "
        assert api.responses.retrieve(response.id).id == response.id
