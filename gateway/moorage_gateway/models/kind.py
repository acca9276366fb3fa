"""The call kind of models: `/models/ENDPOINT/…`, asked of the provider as it was asked here. Layer: engine; I/O by `asking.py`.

A model is no effect: where its answer was lost it is asked again. Tries follow each other as long as nothing of an answer was passed on.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from moorage_api.catalog import EndpointEntry, credential_name
from moorage_api.kinds import quantities
from moorage_api.ledger.journal import Permits
from moorage_api.wire.calls import ANY, MODELS
from moorage_gateway.clock import Clock
from moorage_gateway.journal.answers import Answer, outcome_unknown
from moorage_gateway.journal.kinds import Asked, CallRefused, NoOutcome, Outlet
from moorage_gateway.models import clocks, fingerprints, protocols
from moorage_gateway.models.asking import AskFault, Coming, Request, Upstreams
from moorage_gateway.models.credentials import Credentials

AGAIN = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
FIRST_PAUSE_S = 0.5
PLACE_S = 30.0
"""For one of `spec.concurrency` places to come free."""
SMALL = 256 * 1024
"""Bytes of an answer that is thrown away for another try."""

_TARGET = re.compile(rf"{MODELS}(~?[a-z0-9][a-z0-9-]{{0,62}})/([^\s]*)\Z")

Find = Callable[[str, str], EndpointEntry | None]


class Models:
    """Finds the endpoint, prepares, asks. `find` is the catalog's, by tenant and name."""

    prefix = MODELS

    def __init__(self, find: Find, upstreams: Upstreams, credentials: Credentials, clock: Clock) -> None:
        self._find = find
        self.upstreams = upstreams
        self.credentials = credentials
        self.clock = clock
        self._places: dict[str, tuple[int, asyncio.Semaphore]] = {}

    def prepare(self, asked: Asked) -> ModelCall:
        """See CallKind."""
        found = _TARGET.match(asked.target)
        if found is None:
            raise CallRefused(protocols.refusal("openai", 404, "not_found", "Models are asked at /models/ENDPOINT/…"))
        name, rest = found[1], found[2]
        endpoint = self._endpoint(asked, name)
        spec, protocol = endpoint.spec, str(endpoint.spec["protocol"])
        path = protocols.path_of(protocol, asked.method, rest)
        if path is None:
            shown = rest.partition("?")[0][:80]
            message = f"{asked.method} {shown} is not a call of {protocol} that is passed through"
            raise CallRefused(protocols.refusal(protocol, 404, "not_found", message))
        body, parsed, model = _body(asked, spec, protocol, path.model)
        said = fingerprints.parts(
            endpoint.name,
            asked.method,
            f"{path.path}?{path.query}" if path.query else path.path,
            asked.headers,
            body,
            parsed,
        )
        alike = clocks.alike(*said, self.clock.now_ms() / 1000)
        return ModelCall(self, endpoint, asked, path, body, model, fingerprints.digest(*said), alike)

    def _endpoint(self, asked: Asked, name: str) -> EndpointEntry:
        may = [str(each) for each in asked.spec.get("models") or []]
        if name.startswith(ANY):
            speaks = name[len(ANY) :]
            wanted = {"openai", "compatible"} if speaks == "openai" else {speaks}
            of_it = (self._find(asked.tenant, each) for each in may)
            endpoint = next((each for each in of_it if each is not None and each.spec["protocol"] in wanted), None)
            protocol = speaks
            why = f"None of the model endpoints in spec.models of agent '{asked.agent}' speaks {speaks}; it has: "
        else:
            endpoint = self._find(asked.tenant, name) if name in may else None
            protocol = "openai"
            why = (
                f"'{name}' is not a model endpoint that agent '{asked.agent}' may use: add it to spec.models; it has: "
            )
            if name in may and endpoint is None:
                why = f"There is no ModelEndpoint '{name}' (or it is not ready), though spec.models names it; spec.models: "
        if endpoint is None:
            raise CallRefused(protocols.refusal(protocol, 403, "no_endpoint", why + (", ".join(may) or "none") + "."))
        return endpoint

    def place(self, endpoint: EndpointEntry) -> asyncio.Semaphore:
        """The places of an endpoint in this process; new ones where its manifest says another number."""
        most = int(endpoint.spec["concurrency"])
        known = self._places.get(endpoint.field)
        if known is None or known[0] != most:
            known = self._places[endpoint.field] = most, asyncio.Semaphore(most)
        return known[1]


@dataclass(frozen=True)
class ModelCall:
    """One prepared request."""

    models: Models
    endpoint: EndpointEntry
    asked: Asked
    path: protocols.Path
    body: bytes
    model: str
    fingerprint: str
    alike: str

    @property
    def permits(self) -> Permits:
        """Models may be asked again."""
        return "again"

    @property
    def what(self) -> dict[str, str]:
        """See Prepared."""
        return {"kind": "model", "endpoint": self.endpoint.name, "path": self.path.path, "model": self.model[:128]}

    @property
    def tool(self) -> str:
        """No effect: requests that differ in readings of the clock alone."""
        return f"alike {self.alike}" if self.alike else ""

    @property
    def call(self) -> str:
        """Nobody is turned away to it."""
        return ""

    def unknown(self) -> Answer:
        """Never for a model; the shape is everyone's."""
        return outcome_unknown(f"A request to {self.endpoint.name}")

    def earlier(self, call: str, answer: Answer | None) -> Answer:
        """Never for a model."""
        return self.unknown()

    async def perform(self, outlet: Outlet) -> None:
        """See Prepared. A server that gives no answer ends in an answer of ours, which is recorded as any other."""
        place = self.models.place(self.endpoint)
        try:
            async with asyncio.timeout(PLACE_S):
                await place.acquire()
        except TimeoutError:
            most = self.endpoint.spec["concurrency"]
            self._say(
                outlet, 429, "at_capacity", f"All {most} places of model endpoint '{self.endpoint.name}' are taken."
            )
            return
        try:
            await self._tries(outlet)
        finally:
            place.release()

    async def _tries(self, outlet: Outlet) -> None:
        spec, clock = self.endpoint.spec, self.models.clock
        key = None
        if spec.get("credential"):
            key = self.models.credentials.get(credential_name(self.endpoint.tenant, self.endpoint.name))
            if key is None:
                named = spec["credential"]
                message = (
                    f"The key of model endpoint '{self.endpoint.name}' is not there: the platform found no usable value "
                    f"'{named['key']}' of secret '{named['secret']}'."
                )
                self._say(outlet, 503, "no_credential", message)
                return
        retries, pause = int(spec["retries"]["attempts"]), FIRST_PAUSE_S
        ends = clock.monotonic() + quantities.seconds(spec["timeouts"]["total"])
        most = quantities.seconds(spec["retries"]["maxWait"])
        for left in range(retries, -1, -1):
            again = await self._try(outlet, key, ends - clock.monotonic(), retries_left=left, most=most)
            if again is None:
                return
            wait = min(most, max(again, pause))
            pause *= 2
            if clock.monotonic() + wait >= ends:
                self._say(outlet, 504, "upstream_timeout", f"{self.endpoint.name} gave no answer in the time it has.")
                return
            await clock.sleep(wait)

    async def _try(
        self, outlet: Outlet, key: str | None, seconds: float, *, retries_left: int, most: float
    ) -> float | None:
        """One request. None: the outlet has its answer; else seconds that the server asks to wait for before another."""
        request = self._request(key, seconds)
        try:
            async with asyncio.timeout(max(0.1, seconds)):
                await outlet.sending()
                async with self.models.upstreams.ask(request) as coming:
                    if coming.status in AGAIN and retries_left:
                        wait = _retry_after(coming)
                        if wait <= most:
                            return wait
                    await self._take(outlet, coming, last_try=not retries_left)
            return None
        except AskFault as fault:
            return self._failed(outlet, str(fault), final=fault.final or not retries_left, late=fault.late)
        except TimeoutError:
            return self._failed(outlet, "the answer was not whole in the time it has", final=True, late=True)

    def _failed(self, outlet: Outlet, why: str, *, final: bool, late: bool) -> float | None:
        if outlet.passed_on:
            raise NoOutcome(why)  # chunks of two tries are never spliced
        outlet.clear()
        if not final:
            return 0.0
        status, code = (504, "upstream_timeout") if late else (502, "upstream_failed")
        self._say(outlet, status, code, f"Model endpoint '{self.endpoint.name}' gave no answer: {why}.")
        return None

    async def _take(self, outlet: Outlet, coming: Coming, *, last_try: bool) -> None:
        """The answer as it comes. Raises AskFault."""
        if 300 <= coming.status < 400:
            raise AskFault(
                "its server redirects elsewhere; write the place it means as spec.baseUrl", sent=True, final=True
            )
        if not 200 <= coming.status < 600:
            raise AskFault(f"its server answered {coming.status}", sent=True, final=True)
        given = protocols.given_headers(coming.headers)
        if coming.status in AGAIN and last_try and not any(name == "x-should-retry" for name, _ in given):
            given = (*given, ("x-should-retry", "false"))  # it was tried here as often as the endpoint says
        outlet.begin(coming.status, given, streams=coming.streams)
        ends = protocols.Ends()
        async for piece in coming.pieces():
            before = ends.split(piece) if coming.streams else 0
            if before:
                outlet.put(piece[:before])
            if before < len(piece):
                outlet.put(piece[before:], last=True)

    def _request(self, key: str | None, seconds: float) -> Request:
        spec, protocol = self.endpoint.spec, str(self.endpoint.spec["protocol"])
        times = {
            name: min(seconds, quantities.seconds(spec["timeouts"][name])) for name in ("connect", "firstByte", "idle")
        }
        return Request(
            method=self.asked.method,
            url=protocols.url_of(protocol, str(spec["baseUrl"]), self.path, spec.get("apiVersion")),
            headers=protocols.sent_headers(protocol, self.asked.headers, key),
            body=self.body,
            connect=times["connect"],
            first=times["firstByte"],
            idle=times["idle"],
        )

    def _say(self, outlet: Outlet, status: int, code: str, message: str) -> None:
        answer = protocols.refusal(str(self.endpoint.spec["protocol"]), status, code, message)
        outlet.begin(answer.status, answer.headers, streams=False)
        outlet.put(answer.body)


def _body(asked: Asked, spec: dict[str, Any], protocol: str, deployment: str) -> tuple[bytes, Any, str]:
    """The body as it is sent, the same as JSON, and the model it is for. Raises CallRefused."""
    if asked.method == "GET":
        return b"", None, deployment
    try:
        parsed = orjson.loads(asked.body)
    except orjson.JSONDecodeError as fault:
        raise CallRefused(protocols.refusal(protocol, 400, "invalid_json", f"The body is not JSON: {fault}.")) from None
    if not isinstance(parsed, dict):
        raise CallRefused(protocols.refusal(protocol, 400, "invalid_request", "The body is not a JSON object."))
    body, default = asked.body, spec.get("defaultModel")
    model = deployment or parsed.get("model") or ""
    if not model and default:
        model = str(default)
        parsed = {"model": model, **parsed} | {"model": model}
        body = orjson.dumps(parsed)
    may = spec.get("models") or []
    if not isinstance(model, str) or (may and model not in may):
        shown = model[:80] if isinstance(model, str) and model else "none"
        message = f"The model '{shown}' is not one that this endpoint allows; it allows: {', '.join(may)}."
        raise CallRefused(protocols.refusal(protocol, 403, "model_not_allowed", message))
    return body, parsed, model


def _retry_after(coming: Coming) -> float:
    """Seconds that the server asks to wait; 0 where it does not say, or says it in a way nobody can read."""
    try:
        exact = coming.header("retry-after-ms")
        wait = float(exact) / 1000 if exact else float(coming.header("retry-after") or 0)
    except ValueError:
        return 0.0
    return wait if 0 <= wait < float("inf") else 0.0
