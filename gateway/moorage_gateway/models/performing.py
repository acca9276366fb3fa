"""A prepared request to a model, made: tries, then the endpoints that stand in, then what is said of it. Layer: engine; I/O by `asking.py`.

A model is no effect: where its answer was lost it is asked again. Tries, and endpoints, follow each other as long as nothing of an answer
was passed on.
"""

from __future__ import annotations

import asyncio
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from moorage_api.catalog import EndpointEntry, credential_name
from moorage_api.kinds import quantities
from moorage_api.ledger.journal import Bounds, Outcome, Permits
from moorage_gateway.clock import Clock
from moorage_gateway.journal.answers import Answer, outcome_unknown
from moorage_gateway.journal.kinds import Asked, Bounded, NoOutcome, Outlet
from moorage_gateway.models import aiming, fingerprints, hiding, protocols, usage
from moorage_gateway.models.aiming import Aim
from moorage_gateway.models.asking import AskFault, Coming, Request, Upstreams
from moorage_gateway.models.credentials import Credentials
from moorage_gateway.models.hiding import Hiding
from moorage_gateway.models.identity import NoToken, WorkloadTokens, of_endpoint
from moorage_gateway.models.streams import WithoutCounts

AGAIN = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
_UNAUTHORIZED = 401
FIRST_PAUSE_S = 0.5
PLACE_S = 30.0
"""For one of `spec.concurrency` places to come free."""
KEPT = 256 * 1024
"""Bytes of a request that is kept for replays."""
SUSPENDED_S = 60.0
"""Until an agent may ask again whether an endpoint is suspended."""


class Means(Protocol):
    """What calls are made with: the kind's."""

    upstreams: Upstreams
    credentials: Credentials
    identity: WorkloadTokens
    clock: Clock

    def place(self, endpoint: EndpointEntry) -> asyncio.Semaphore:
        """Its places in this process."""

    def others(self, endpoint: EndpointEntry) -> Sequence[EndpointEntry]:
        """What stands in for it."""


class _Nothing(Exception):
    """An endpoint gave nothing of an answer; `answer` is told where no other stands in."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class _Stale(Exception):
    """The server does not accept the token any more: it has done nothing."""


@dataclass(frozen=True)
class ModelCall:
    """One prepared request."""

    means: Means
    asked: Asked
    request: aiming.Request
    endpoint: EndpointEntry
    fingerprint: str
    alike: str

    @property
    def permits(self) -> Permits:
        """Models may be asked again."""
        return "again"

    @property
    def bounded(self) -> Bounded:
        """See Prepared. Reading lists costs nothing."""
        limits, free = self.endpoint.spec.get("limits") or {}, self.asked.method == "GET"

        def most(name: str) -> int:
            return 0 if free else int(limits.get(name) or 0)

        bounds = Bounds(
            purse=self.endpoint.field,
            requests=most("requestsPerMinute"),
            tokens=most("tokensPerMinute"),
            turn_tokens=most("tokensPerTurn"),
            shut=bool(self.endpoint.spec.get("suspend")),
        )
        return Bounded(bounds, self._refused)

    @property
    def what(self) -> dict[str, str]:
        """See Prepared."""
        return {
            "kind": "model",
            "endpoint": self.endpoint.name,
            "protocol": self._protocol,
            "path": self.request.path.path,
            "model": self.request.model[:128],
        }

    @property
    def tool(self) -> str:
        """No effect: requests that differ in readings of the clock alone."""
        return f"alike {self.alike}" if self.alike else ""

    @property
    def call(self) -> str:
        """Nobody is turned away to it."""
        return ""

    @property
    def canonical(self) -> dict[str, Any]:
        """All that makes it the same call in another attempt, for people."""
        path = self.request.path
        target = f"{path.path}?{path.query}" if path.query else path.path
        return fingerprints.shown(
            self.endpoint.name, self.asked.method, target, self.asked.headers, self.request.parsed
        )

    def kept(self) -> bytes:
        """The same for the journal, packed; empty where it is too large."""
        if len(self.request.body) > KEPT:
            return b""
        return zlib.compress(orjson.dumps(self.canonical, option=orjson.OPT_SORT_KEYS), level=1)

    def unknown(self) -> Answer:
        """Never for a model; the shape is everyone's."""
        return outcome_unknown(f"A request to {self.endpoint.name}")

    def earlier(self, call: str, answer: Answer | None) -> Answer:
        """Never for a model."""
        return self.unknown()

    async def perform(self, outlet: Outlet) -> None:
        """See Prepared. Where no endpoint gives an answer, one of ours is given, which is recorded as any other."""
        ends = self.means.clock.monotonic() + quantities.seconds(self.endpoint.spec["timeouts"]["total"])
        aims = [aiming.aim(each, self.request) for each in (self.endpoint, *self.means.others(self.endpoint))]
        there = [each for each in aims if each is not None]
        for aim in there:
            last = aim is there[-1] or self.means.clock.monotonic() >= ends
            try:
                await _Making(self, aim, outlet, ends, last=last).placed()
            except _Nothing as nothing:
                outlet.clear()
                if last:
                    self._say(outlet, nothing)
                    return
            else:
                return

    @property
    def _protocol(self) -> str:
        return str(self.endpoint.spec["protocol"])

    def _say(self, outlet: Outlet, nothing: _Nothing) -> None:
        answer = protocols.refusal(self._protocol, nothing.status, nothing.code, str(nothing))
        outlet.note(Outcome({"status": str(nothing.status)}, request=self.kept()))
        outlet.begin(answer.status, answer.headers, streams=False)
        outlet.put(answer.body)

    def _refused(self, word: str, short: str, seconds: float) -> Answer:
        """See Bounded."""
        name, wait = self.endpoint.name, max(1, math.ceil(seconds))
        match word:
            case "SHUT":
                message = f"Model endpoint '{name}' is suspended: nothing is asked of it until its manifest has no spec.suspend."
                return protocols.refusal(self._protocol, 429, "suspended", message, retry_after=SUSPENDED_S)
            case "SPENT":
                message = (
                    f"This turn has spent the tokens that it may at model endpoint '{name}' (spec.limits.tokensPerTurn): end it "
                    "and go on in another one, or have the limit raised."
                )
                return protocols.refusal(self._protocol, 429, "turn_budget_spent", message)
            case _:
                message = (
                    f"Model endpoint '{name}' has no {short} left this minute (spec.limits.{short}PerMinute): ask again in "
                    f"{wait} s, or have the limit raised."
                )
                return protocols.refusal(self._protocol, 429, "rate_limited", message, retry_after=wait)


@dataclass(frozen=True)
class _Making:
    """The tries of one call at one endpoint. `last`: what its server says in the end is the answer. `ends` by the monotonic clock."""

    call: ModelCall
    aim: Aim
    outlet: Outlet
    ends: float
    last: bool

    @property
    def spec(self) -> dict[str, Any]:
        """The endpoint's."""
        return self.aim.endpoint.spec

    @property
    def name(self) -> str:
        """The endpoint's."""
        return self.aim.endpoint.name

    async def placed(self) -> None:
        """All tries, in one of its places. Raises _Nothing, NoOutcome."""
        place = self.call.means.place(self.aim.endpoint)
        try:
            async with asyncio.timeout(PLACE_S):
                await place.acquire()
        except TimeoutError:
            most = self.spec["concurrency"]
            raise _Nothing(
                429, "at_capacity", f"All {most} places of model endpoint '{self.name}' are taken."
            ) from None
        try:
            await self._tries()
        finally:
            place.release()

    async def _tries(self) -> None:
        clock, key, renewed = self.call.means.clock, await self._key(), False
        retries, pause = int(self.spec["retries"]["attempts"]), FIRST_PAUSE_S
        most = quantities.seconds(self.spec["retries"]["maxWait"])
        for left in range(retries, -1, -1):
            try:
                again = await self._try(key, retries_left=left, most=most, renewed=renewed)
            except _Stale:
                self.call.means.identity.drop(of_endpoint(self.aim.endpoint), key or "")
                key, renewed = await self._key(), True
                again = await self._try(key, retries_left=left, most=most, renewed=renewed)
            if again is None:
                return
            wait = min(most, max(again, pause))
            pause *= 2
            if clock.monotonic() + wait >= self.ends:
                raise _Nothing(504, "upstream_timeout", f"{self.name} gave no answer in the time it has.")
            await clock.sleep(wait)

    async def _key(self) -> str | None:
        if self._by_identity:
            try:
                return await self.call.means.identity.get(
                    of_endpoint(self.aim.endpoint), max(0.1, self.ends - self.call.means.clock.monotonic())
                )
            except NoToken as why:
                message = f"There is no token for model endpoint '{self.name}': {why}."
                raise _Nothing(503, "no_credential", message) from None
        named = self.spec.get("credential")
        if not named:
            return None
        key = self.call.means.credentials.get(credential_name(self.aim.endpoint.tenant, self.name))
        if key is None:
            message = (
                f"The key of model endpoint '{self.name}' is not there: the platform found no usable value "
                f"'{named['key']}' of secret '{named['secret']}'."
            )
            raise _Nothing(503, "no_credential", message)
        return key

    @property
    def _by_identity(self) -> bool:
        return bool(self.spec.get("workloadIdentity"))

    async def _try(self, key: str | None, *, retries_left: int, most: float, renewed: bool) -> float | None:
        """One request. None: the outlet has its answer; else seconds that the server asks to wait for before another. Raises _Stale, unless
        the token was `renewed`."""
        seconds = self.ends - self.call.means.clock.monotonic()
        try:
            async with asyncio.timeout(max(0.1, seconds)):
                await self.outlet.sending()
                async with self.call.means.upstreams.ask(self._request(key, seconds)) as coming:
                    if coming.status == _UNAUTHORIZED and self._by_identity and not renewed:
                        raise _Stale
                    if coming.status in AGAIN and retries_left:
                        wait = _retry_after(coming)
                        if wait <= most:
                            return wait
                    if coming.status in AGAIN and not self.last:
                        raise _Nothing(coming.status, "upstream_failed", f"{self.name} answered {coming.status}")
                    await self._take(coming, key or "", last_try=not retries_left)
            return None
        except AskFault as fault:
            return self._failed(str(fault), final=fault.final or not retries_left, late=fault.late)
        except TimeoutError:
            return self._failed("the answer was not whole in the time it has", final=True, late=True)

    def _failed(self, why: str, *, final: bool, late: bool) -> float | None:
        if self.outlet.passed_on:
            raise NoOutcome(why)  # chunks of two tries are never spliced
        self.outlet.clear()
        if not final:
            return 0.0
        status, code = (504, "upstream_timeout") if late else (502, "upstream_failed")
        raise _Nothing(status, code, f"Model endpoint '{self.name}' gave no answer: {why}.")

    async def _take(self, coming: Coming, key: str, *, last_try: bool) -> None:
        """The answer as it comes, without the key that its server was shown. Raises AskFault."""
        if 300 <= coming.status < 400:
            raise AskFault(
                "its server redirects elsewhere; write the place it means as spec.baseUrl", sent=True, final=True
            )
        if not 200 <= coming.status < 600:
            raise AskFault(f"its server answered {coming.status}", sent=True, final=True)
        given = tuple((name, hiding.text(value, key)) for name, value in protocols.given_headers(coming.headers))
        if coming.status in AGAIN and last_try and not any(name == "x-should-retry" for name, _ in given):
            given = (*given, ("x-should-retry", "false"))  # it was tried here as often as the endpoint says
        self.outlet.begin(coming.status, given, streams=coming.streams)
        came: list[bytes] = []
        try:
            await self._pass_on(coming, Hiding(key), came)
        finally:
            self._note(coming, b"".join(came))

    async def _pass_on(self, coming: Coming, key: Hiding, came: list[bytes]) -> None:
        """A piece as it comes, and no two as one."""
        ends, counts = protocols.Ends(), WithoutCounts() if self.aim.hides and coming.streams else None

        def put(piece: bytes) -> None:
            if piece:
                came.append(piece)
                self._put(ends, counts.feed(piece) if counts is not None else piece, streams=coming.streams)

        async for piece in coming.pieces():
            put(key.feed(piece))
        put(key.end())
        if counts is not None:
            self._put(ends, counts.end(), streams=True)

    def _put(self, ends: protocols.Ends, piece: bytes, *, streams: bool) -> None:
        before = ends.split(piece) if streams else 0
        if before:
            self.outlet.put(piece[:before])
        if before < len(piece):
            self.outlet.put(piece[before:], last=True)

    def _note(self, coming: Coming, body: bytes) -> None:
        """What it turned out to be; of what came of it, where it broke off."""
        told = usage.told(body, streams=coming.streams) if coming.status < 300 else usage.Told()
        what = told.what | {"status": str(coming.status)}
        if self.aim.endpoint is not self.call.endpoint:
            what["answered_by"] = self.name
        tokens = told.usage.total if told.usage is not None else 0
        self.outlet.note(Outcome(what, told.sums, tokens, self.call.kept()))

    def _request(self, key: str | None, seconds: float) -> Request:
        spec, protocol = self.spec, str(self.spec["protocol"])
        times = {
            name: min(seconds, quantities.seconds(spec["timeouts"][name])) for name in ("connect", "firstByte", "idle")
        }
        return Request(
            method=self.call.asked.method,
            url=protocols.url_of(protocol, str(spec["baseUrl"]), self.aim.path, spec.get("apiVersion")),
            headers=protocols.sent_headers(protocol, self.call.asked.headers, key, bearer=self._by_identity),
            body=self.aim.body,
            connect=times["connect"],
            first=times["firstByte"],
            idle=times["idle"],
        )


def _retry_after(coming: Coming) -> float:
    """Seconds that the server asks to wait; 0 where it does not say, or says it in a way nobody can read."""
    try:
        exact = coming.header("retry-after-ms")
        wait = float(exact) / 1000 if exact else float(coming.header("retry-after") or 0)
    except ValueError:
        return 0.0
    return wait if 0 <= wait < float("inf") else 0.0
