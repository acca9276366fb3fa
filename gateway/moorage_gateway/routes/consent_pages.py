"""The pages on which a user consents, for browsers without a key. Raw ASGI. Layer: gateway, rim.

    GET  /v1/oauth/start?link=…   asks; gives the browser its cookie
    POST /v1/oauth/start?link=…   begins: to the authorization server. Only from that page, in that browser
    GET  /v1/oauth/callback?…     ends: the code becomes tokens

Every answer is a page or a redirect to where the manifest says; nothing of a request leads anywhere.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from moorage_api.errors import ApiError
from moorage_api.ledger.script import LedgerError
from moorage_gateway import facts
from moorage_gateway.audit import AuditLog, Origin
from moorage_gateway.auth import Principal
from moorage_gateway.consents import pages
from moorage_gateway.consents.flow import CALLBACK, START, Consents, Refusal, is_browser, new_browser
from moorage_gateway.routes import answers
from moorage_gateway.store import StoreError

PATHS = frozenset({START, CALLBACK})
MOST_FORM = 4096
MOST_FIELDS = 32
_METHODS = {START: "GET, POST", CALLBACK: "GET"}
_SAFE = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]
_LATER = "The platform's storage does not answer. Try again in a moment."
_ANEW = "The platform's storage does not answer, and nothing was kept. Open the agent's link again in a moment."


class ConsentPages:
    """See the module."""

    def __init__(self, consents: Consents, audit: AuditLog) -> None:
        self._consents = consents
        self._audit = audit

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serves one request."""
        try:
            await self._serve(scope, receive, send)
        except Refusal as no:
            await self._refuse(scope, send, no.status, str(no))
        except ApiError as no:
            await self._refuse(scope, send, no.status, no.message)
        except (LedgerError, StoreError, TimeoutError):
            await self._refuse(scope, send, 503, _LATER if scope["path"] == START else _ANEW)

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        path, method = scope["path"], scope["method"]
        if method not in _METHODS[path].split(", "):
            await self._page(
                send, 405, pages.refusal("This page is opened by a link."), [(b"allow", _METHODS[path].encode())]
            )
            return
        given, browser = _fields(scope["query_string"]), self._browser(scope)
        if path == CALLBACK:
            await self._finish(scope, send, given, browser)
            return
        link = given.get("link", "")
        if method == "POST":
            form = _fields(await answers.read_body(scope, receive, MOST_FORM))
            place = await self._consents.begun(link, browser, form.get("check", ""))
            await self._page(send, 303, b"", [(b"location", place.encode("ascii", "replace"))])
            return
        browser = browser if is_browser(browser) else new_browser()
        shown = await self._consents.shown(link, browser)
        await self._page(send, 200, pages.question(link, shown), [(b"set-cookie", self._cookie(browser))])

    async def _finish(self, scope: Any, send: Any, given: dict[str, str], browser: str) -> None:
        known = facts.of(scope)
        subject = await self._consents.finished(given, browser)
        # By a browser, which has no key: the record names the user for whom it was done.
        who, what = Principal(subject.tenant, subject.user), f"consent/{subject.toolbox}/{subject.upstream}"
        self._audit.record(who, "consent.give", what, "ok", Origin(known.request_id, known.trace_id))
        await self._page(send, 200, pages.done(subject))

    async def _refuse(self, scope: Any, send: Any, status: int, text: str) -> None:
        facts.of(scope).error = "consent_refused"
        await self._page(send, status, pages.refusal(text))

    async def _page(self, send: Any, status: int, body: bytes, more: answers.Headers | None = None) -> None:
        await answers.send_bytes(send, status, body, b"text/html; charset=utf-8", [*_SAFE, *(more or [])])

    @property
    def _name(self) -> str:
        """Of the cookie: by TLS one that no other host of the domain, and nobody on the way, can set."""
        return "__Host-moorage-consent" if self._consents.secure else "moorage-consent"

    def _browser(self, scope: Any) -> str:
        for name, value in scope["headers"]:
            if name == b"cookie":
                for part in value.decode("latin-1").split(";"):
                    key, _, text = part.strip().partition("=")
                    if key == self._name:
                        return str(text)
        return ""

    def _cookie(self, browser: str) -> bytes:
        secure = "; Secure" if self._consents.secure else ""
        return f"{self._name}={browser}; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax{secure}".encode()


def _fields(data: bytes) -> dict[str, str]:
    """The first of each name. Raises Refusal."""
    try:
        pairs = parse_qsl(data.decode("latin-1"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise Refusal(400, "This address holds more than it may. Open the link that the agent gave you.") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:  # two states, two codes: which is meant, nobody can say
            raise Refusal(400, "This address names a thing twice. Open the link that the agent gave you.")
        found[name] = value
    return found
