"""What people are told, and how it gets there. Layer: gateway; `message` and `after` are pure, `Alerts` sends.

An alert waits in the routine's state until its target has answered 2xx. Each try carries the same id (`webhook-id`, as Standard Webhooks
names it), so a target that was told and whose answer was lost can tell. The URL is a secret: it stands in no text.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from moorage_api.catalog import alert_credential_name
from moorage_api.kinds.routine import AlertTarget
from moorage_gateway.models.asking import AskFault, Request, Upstreams
from moorage_gateway.models.credentials import Credentials
from moorage_gateway.routines.running import shown, trace_of
from moorage_gateway.routines.state import Alert, State, is_invocation

WITHIN_S = 8.0
"""For one try: shorter than a taken routine is left alone."""
WAITS_S = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 14_400.0)
"""Before each further try: half a day in all, a night's outage of a chat. Then the alert is dead."""
MOST_DEAD = 20


@dataclass(frozen=True)
class Place:
    """What an alert is about. `url`: the gateway's public URL, "" where it is not known."""

    tenant: str
    routine: str
    agent: str
    url: str = ""


def message(alert: Alert, place: Place, kind: str) -> dict[str, Any]:
    """The JSON body for one type of target."""
    title, lines = _title(alert, place), _lines(alert, place)
    invoked = is_invocation(alert.response)
    response = "" if invoked else alert.response
    link = f"{place.url}/v1/agents/{place.agent}/responses/{response}" if place.url and response else ""
    match kind:
        case "slack":
            text = "\n".join([f"*{title}*", *lines, *([link] if link else [])])
            return {"text": text, "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": text[:2900]}}]}
        case "teams":
            body: list[dict[str, Any]] = [
                {"type": "TextBlock", "size": "Medium", "weight": "Bolder", "wrap": True, "text": title}
            ]
            body += [{"type": "TextBlock", "wrap": True, "text": line} for line in lines]
            card: dict[str, Any] = {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.4", "body": body,
            }  # fmt: skip
            if link:
                card["actions"] = [{"type": "Action.OpenUrl", "title": "Response", "url": link}]
            return {
                "type": "message",
                "attachments": [{"contentType": "application/vnd.microsoft.card.adaptive", "content": card}],
            }
        case _:
            return {
                "type": f"routine.{alert.kind}",
                "id": alert.id,
                "routine": place.routine,
                "tenant": place.tenant,
                "agent": place.agent,
                "run": alert.run,
                "scheduled_time": shown(alert.slot),
                "ended_at": shown(alert.ended),
                "outcome": alert.outcome,
                "error": alert.error,
                "failures": alert.failures,
                "response_id": response or None,
                "invocation_id": alert.response if invoked else None,
                "trace_id": trace_of(place.tenant, alert.run) if alert.response else None,
                "url": link or None,
                "title": title,
            }


def signature(key: str, alert: str, at: int, body: bytes) -> str:
    """`webhook-signature` of Standard Webhooks: HMAC-SHA256 over id, time (s) and body. A `whsec_` key is base64, any other one text."""
    secret = base64.b64decode(key[6:]) if key.startswith("whsec_") else key.encode()
    signed = hmac.new(secret, f"{alert}.{at}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(signed.digest()).decode()}"


def after(state: State, outcomes: Mapping[str, str], now: int) -> State:
    """The state once these alerts were tried: id to "" for a told one, else to how it failed."""
    left: list[Alert] = []
    dead = list(state.dead)
    for alert in state.alerts:
        failed = outcomes.get(alert.id)
        if failed is None:
            left.append(alert)
        elif failed:
            tries = alert.tries + 1
            if tries > len(WAITS_S):
                dead.append(replace(alert, tries=tries, why=failed, at=now))
            else:
                left.append(replace(alert, tries=tries, why=failed, at=now + int(WAITS_S[tries - 1] * 1000)))
    return replace(state, alerts=tuple(left), dead=tuple(dead[-MOST_DEAD:]))


class Alerts:
    """Sends. `now` in epoch milliseconds."""

    def __init__(self, upstreams: Upstreams, credentials: Credentials, now: Callable[[], int], url: str) -> None:
        self._upstreams = upstreams
        self._credentials = credentials
        self._now = now
        self._url = url

    async def told(
        self, tenant: str, routine: str, agent: str, targets: list[AlertTarget], alerts: list[Alert]
    ) -> dict[str, str]:
        """Tries each once, side by side: id to "" where the target has it, else to how it failed."""
        place = Place(tenant, routine, agent, self._url)
        named = {target.name: target for target in targets}
        found = await asyncio.gather(*(self._one(place, named.get(alert.target), alert) for alert in alerts))
        return {alert.id: outcome for alert, outcome in zip(alerts, found, strict=True)}

    async def _one(self, place: Place, target: AlertTarget | None, alert: Alert) -> str:
        if target is None:
            return ""  # the manifest names it no more: nobody is to be told
        url = self._credentials.get(alert_credential_name(place.tenant, place.routine, target.name, "url"))
        if url is None:
            return f"there is no URL for {target.name}: the Secret {target.url.secret} has no usable value {target.url.key!r}"
        body = orjson.dumps(message(alert, place, target.type))
        at = self._now() // 1000
        headers = {"content-type": "application/json", "webhook-id": alert.id, "webhook-timestamp": str(at)}
        if target.signing is not None:
            key = self._credentials.get(alert_credential_name(place.tenant, place.routine, target.name, "signing"))
            try:
                headers["webhook-signature"] = signature(key or "", alert.id, at, body) if key else ""
            except ValueError:
                headers["webhook-signature"] = ""
            if not headers["webhook-signature"]:
                return f"there is no key to sign with for {target.name}"
        return await self._sent(url, headers, body)

    async def _sent(self, url: str, headers: dict[str, str], body: bytes) -> str:
        wanted = Request("POST", url, headers, body, connect=WITHIN_S, first=WITHIN_S, idle=WITHIN_S)
        try:
            async with asyncio.timeout(WITHIN_S), self._upstreams.ask(wanted) as answer:
                return "" if 200 <= answer.status < 300 else f"it answered {answer.status}"
        except (AskFault, TimeoutError, ValueError) as fault:
            return "it is not reached" if isinstance(fault, ValueError) else (str(fault) or "it did not answer in time")


def _title(alert: Alert, place: Place) -> str:
    match alert.kind:
        case "resolved":
            return f"Routine {place.routine} runs again"
        case "stopped":
            return f"Routine {place.routine} was stopped after {alert.failures} failed runs"
        case _:
            return f"Routine {place.routine} failed" + (" (timed out)" if alert.outcome == "timed_out" else "")


def _lines(alert: Alert, place: Place) -> list[str]:
    lines = [f"Agent {place.agent}, due {shown(alert.slot)}, ended {shown(alert.ended)}"]
    if alert.error:
        lines.append(alert.error[:1000])
    if alert.response:
        lines.append(f"{'Invocation' if is_invocation(alert.response) else 'Response'} {alert.response}")
    if alert.kind == "stopped":
        lines.append(f"`moorage routines resume {place.routine}` lets it run again.")
    return lines
