"""A user's way to a consent, and back. Layer: engine; I/O by the store, Redis and the token server.

    ask       a call needs one: a link, the user's own, for a quarter of an hour
    shown     their browser opened it: what they are asked
    begun     they go on: the link is this browser's from now on, and leads to the authorization server
    finished  it sent them back: state, browser and issuer are compared, the code becomes tokens
    revoked   they, or an operator, end it

The gateway knows its callers by keys, and browsers have none: whoever opens a link acts for its user. What is compared is that one browser
goes the whole way, and begins it on a page that names the user (docs/security.md, T10).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from moorage_api.catalog import ToolboxEntry, tool_credential_name
from moorage_api.ledger.consents import ConsentLedger, Item, Wrong, named
from moorage_api.ledger.script import LedgerError
from moorage_gateway import token_requests
from moorage_gateway.clock import Clock
from moorage_gateway.consents.holding import ASK_S, Holding
from moorage_gateway.consents.records import MOST_LISTED, ConsentRecords, Page
from moorage_gateway.consents.sealing import Sealing
from moorage_gateway.consents.shapes import (
    GIVEN,
    REVOKED,
    Consent,
    NoKey,
    Subject,
    Terms,
    is_per_user,
    terms,
)
from moorage_gateway.consents.verdicts import of_a_code, wrong
from moorage_gateway.models.asking import Upstreams
from moorage_gateway.models.credentials import Credentials
from moorage_gateway.token_requests import TokenFault

START, CALLBACK = "/v1/oauth/start", "/v1/oauth/callback"

_WORD = re.compile(r"[A-Za-z0-9_-]{43}\Z")
"""32 random bytes: links, states, browsers."""
_CODE = re.compile(r"[a-z_]{1,40}\Z")
MOST_CODE = 4096

log = logging.getLogger(__name__)


class Refusal(Exception):
    """`str()` is for the user's own eyes; `status` of HTTP."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Shown:
    """What a link is for. `check`: what its form sends back."""

    subject: Subject
    server: str
    scopes: tuple[str, ...]
    check: str


@dataclass(frozen=True)
class Means:
    """What consents are made with. `find`: a toolbox by tenant and name."""

    upstreams: Upstreams
    credentials: Credentials
    find: Callable[[str, str], ToolboxEntry | None]
    sealing: Sealing
    clock: Clock


class Consents:
    """See the module."""

    def __init__(self, means: Means, ledger: ConsentLedger, records: ConsentRecords, url: str) -> None:
        """`url`: the gateway's own base as browsers reach it, where settings say so."""
        self._means = means
        self._ledger = ledger
        self._records = records
        self._url = url
        self.holding = Holding(records, ledger, means.upstreams, means.clock)

    def serve(self, url: str) -> None:
        """The same, of a gateway that learned it from its listener."""
        self._url = url

    @property
    def secure(self) -> bool:
        """Whether browsers come by TLS."""
        return self._url.startswith("https:")

    @property
    def lacking(self) -> str:
        """Why no consent can be given here; empty: it can."""
        if not self._means.sealing:
            return "this platform has no key to keep consents with: whoever runs it sets MOORAGE_CONSENT_KEYS"
        return (
            "" if self._url else "this platform does not know its own address: whoever runs it sets MOORAGE_PUBLIC_URL"
        )

    def terms(self, tenant: str, toolbox: str, upstream: str) -> Terms | None:
        """What that upstream's manifest says now; None where it has no users' consents, or no secret to ask with."""
        entry = self._means.find(tenant, toolbox)
        every = entry.spec["upstreams"] if entry is not None else []
        spec = next((each for each in every if each["name"] == upstream), None)
        secret = self._means.credentials.get(tool_credential_name(tenant, toolbox, upstream))
        return terms(toolbox, spec, secret) if spec is not None and is_per_user(spec) and secret else None

    # -- the way there

    async def ask(self, subject: Subject, wanted: Terms, response: str) -> str:
        """The link for that user. Raises LedgerError."""
        body = {"subject": vars(subject), "binding": wanted.binding}
        # Of this turn: a client may send the items of several back as one input, where ids count once.
        item = Item(response, f"oacr_{_digest(f'{subject.place} {response}')[:40]}", subject.toolbox)
        return self.url_of(await self._ledger.ask(subject.place, secrets.token_urlsafe(32), body, item))

    async def asked(self, response: str) -> list[dict[str, Any]]:
        """Items for a turn's output: what its calls waited for. Raises LedgerError."""
        return [
            {
                "type": "oauth_consent_request",
                "id": id,
                "consent_link": self.url_of(str(each["link"])),
                "server_label": str(each["box"]),
            }
            for id, each in await self._ledger.asked(response)
        ]

    def url_of(self, link: str) -> str:
        """Where a browser begins."""
        return f"{self._url}{START}?link={link}"

    async def shown(self, link: str, browser: str) -> Shown:
        """What the page asks. Raises Refusal, LedgerError."""
        subject, wanted = await self._linked(link)
        host = urlsplit(str(wanted.oauth["authorizationUrl"])).netloc
        return Shown(subject, host, wanted.scopes, _check(link, browser))

    async def begun(self, link: str, browser: str, check: str) -> str:
        """Where the browser goes now. Raises Refusal, LedgerError."""
        subject, wanted = await self._linked(link)
        if not _WORD.match(browser) or not hmac.compare_digest(check.encode(), _check(link, browser).encode()):
            raise Refusal(403, "This page was not opened in this browser, or it takes no cookies. Open the link again.")
        state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
        body = {
            "subject": vars(subject),
            "binding": wanted.binding,
            "link": link,
            "browser": _digest(browser),
            "verifier": self._means.sealing.seal(verifier.encode(), state),
        }
        match await self._ledger.begin(link, _digest(browser), state, body):
            case "NONE":
                raise _over()
            case "TAKEN":
                raise Refusal(403, "This link was begun with in another browser. Ask the agent again for a new one.")
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        fields = [
            *sorted(wanted.oauth["parameters"].items()),
            ("response_type", "code"),
            ("client_id", wanted.client.id),
            ("redirect_uri", f"{self._url}{CALLBACK}"),
            ("state", state),
            ("code_challenge", challenge),
            ("code_challenge_method", "S256"),
            *wanted.resource,
        ]
        fields += [("scope", " ".join(wanted.scopes))] if wanted.scopes else []
        place = str(wanted.oauth["authorizationUrl"])
        return f"{place}{'&' if '?' in place else '?'}{urlencode(fields)}"

    async def finished(self, given: Mapping[str, str], browser: str) -> Subject:
        """Whose consent is kept now. Raises Refusal, LedgerError, StoreError, ApiError."""
        state = given.get("state", "")
        body = await self._ledger.take(state, secrets.token_hex(16)) if _WORD.match(state) else None
        if body is None:
            raise _over()
        if not _WORD.match(browser) or not hmac.compare_digest(_digest(browser), str(body["browser"])):
            raise Refusal(403, "This answer belongs to another browser. Begin where you opened the link.")
        subject = Subject(**body["subject"])
        wanted = self.terms(subject.tenant, subject.toolbox, subject.upstream)
        if wanted is None or wanted.binding != body["binding"]:
            raise Refusal(409, "The toolbox was changed meanwhile. Ask the agent again.")
        _check_issuer(wanted.oauth, given.get("iss"))
        if "error" in given:
            raise _refused(subject, given["error"])
        code = given.get("code", "")
        if not code or len(code) > MOST_CODE:
            raise Refusal(400, "The other side sent no code. Ask the agent again.")
        try:
            verifier = self._means.sealing.open(str(body["verifier"]), state).decode()
        except NoKey:
            raise _over() from None
        await self._exchanged(subject, wanted, code, verifier)
        with suppress(LedgerError):  # the consent is kept; the link runs out by itself
            await self._ledger.done(str(body["link"]), subject.place)
        return subject

    async def _exchanged(self, subject: Subject, wanted: Terms, code: str, verifier: str) -> None:
        fields = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", f"{self._url}{CALLBACK}"),
            ("code_verifier", verifier),
            *wanted.resource,
        ]
        at = self._means.clock.now_ms()
        try:
            async with asyncio.timeout(ASK_S):
                said = await token_requests.ask(self._means.upstreams, wanted.client, fields)
        except (TokenFault, TimeoutError):
            raise Refusal(502, "The other side's token server did not answer. Ask the agent again.") from None
        if said.token() is None or not said.is_bearer:
            why = said.refusal if of_a_code(said.code) else await self.holding.refusal(subject, wanted, said)
            raise Refusal(502, f"Nothing is kept: {why}. Ask the agent again.")
        tokens = self.holding.tokens(said, at)
        async with asyncio.timeout(2 * ASK_S), self.holding.alone(subject) as hold:
            before = await self._records.latest(subject)
            version = max(hold.now, before.version + 1 if before is not None else 0)
            consent = Consent(subject, version, GIVEN, wanted.binding, wanted.scopes, at // 1000, tokens)
            await self.holding.put(consent)
        await self.holding.diagnosis.mended(subject)

    async def _linked(self, link: str) -> tuple[Subject, Terms]:
        if self.lacking:
            raise Refusal(503, f"Nothing can be allowed here: {self.lacking}.")
        body = await self._ledger.link(link) if _WORD.match(link) else None
        if body is None:
            raise _over()
        subject = Subject(**body["subject"])
        wanted = self.terms(subject.tenant, subject.toolbox, subject.upstream)
        if wanted is None or wanted.binding != body["binding"]:
            raise Refusal(409, "The toolbox was changed meanwhile. Ask the agent again.")
        return subject, wanted

    async def problems(self, tenant: str) -> dict[tuple[str, str], Wrong]:
        """What is wrong with `oauth` as manifests have it now, by toolbox and upstream. Raises LedgerError."""
        found = await self.holding.diagnosis.of(tenant)
        now = {key: self.terms(tenant, *key) for key in found}
        return {key: each for key, each in found.items() if (said := now[key]) and named(said.oauth) == each.oauth}

    # -- and back

    async def given(self, tenant: str, user: str = "", *, after: str = "", limit: int = MOST_LISTED) -> Page:
        """Those of a user, or of all a tenant's. Raises StoreError."""
        return await self._records.given(tenant, user, after=after, limit=limit)

    async def revoke(self, subject: Subject) -> bool:
        """Ends it; False where there was none. The other side is told where the manifest says how, and not waited for longer than a
        moment. Raises StoreError, LedgerError, TimeoutError."""
        async with asyncio.timeout(2 * ASK_S), self.holding.alone(subject) as hold:
            before = await self._records.latest(subject)
            if before is None or before.state != GIVEN:
                return False
            gone = Consent(
                subject, max(hold.now, before.version + 1), REVOKED, before.binding, before.scopes, before.at
            )
            await self.holding.put(gone)
        await self._given_back(subject, before)
        return True

    async def _given_back(self, subject: Subject, before: Consent) -> None:
        wanted = self.terms(subject.tenant, subject.toolbox, subject.upstream)
        if wanted is None or before.tokens is None or before.binding != wanted.binding:
            return
        place = wanted.oauth.get("revocationUrl")
        token = before.tokens.refresh or before.tokens.access
        if place:
            client = token_requests.Client(str(place), wanted.client.id, wanted.client.secret, wanted.client.in_form)
            try:
                async with asyncio.timeout(ASK_S):
                    said = await token_requests.ask(self._means.upstreams, client, [("token", token)])
            except (TokenFault, TimeoutError):
                return  # it is forgotten here all the same
            why = wrong(said.code, said.status) if said.status >= 400 else ""
            if why:  # and there it may live on
                told = f"its revocationUrl answered {said.status} {said.code}".strip()
                await self.holding.diagnosis.found(subject, wanted.oauth, f"{told}: {why}")


def new_browser() -> str:
    """What a browser is known by, for as long as it is on its way."""
    return secrets.token_urlsafe(32)


def is_browser(text: str) -> bool:
    """Whether it may be one."""
    return _WORD.match(text) is not None


def _over() -> Refusal:
    return Refusal(
        404, "This link is over: it is good for a quarter of an hour, and once. Ask the agent again for a new one."
    )


def _refused(subject: Subject, error: str) -> Refusal:
    """The other side's word came by a browser, which may have made it up: it is told its user, and logged, and changes nothing."""
    word = error if _CODE.match(error) else "an error"
    why, told = wrong(word), f"Nothing was allowed: the other side answered {word}."
    if not why:
        return Refusal(403, f"{told} Ask the agent again if you want to.")
    place = (subject.toolbox, subject.upstream, subject.tenant)
    log.warning(
        "a browser says of oauth of %s/%s of tenant %s: its authorization server answered %s: %s", *place, word, why
    )
    return Refusal(403, f"{told} Tell whoever runs this platform: {why}.")


def _check_issuer(said: dict[str, Any], iss: str | None) -> None:
    """Who answers is who was asked (RFC 9207)."""
    issuer = said.get("issuer")
    if issuer is not None:
        good = iss == issuer
    else:
        good = iss is None or _origin(iss) == _origin(str(said["authorizationUrl"]))
    if not good:
        raise Refusal(
            403, "Another one answered than was asked. Nothing is kept; tell whoever runs this platform (oauth.issuer)."
        )


def _origin(url: str) -> tuple[str, str] | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return parts.scheme, parts.netloc


def _check(link: str, browser: str) -> str:
    return _digest(json.dumps([link, browser]))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
