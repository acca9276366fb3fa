"""A scripted authorization server: codes with PKCE, tokens that are renewed with rotation, revocation, token exchange; on a socket of its
own.

Limits: one process, a thread a connection; whoever asks it is signed in as `who` and agrees, unless it `refuses`; one client, `moorage`, of
whom it knows the secret; no TLS, no discovery, no scopes of its own. What it checks: client and secret, exact redirect URI, S256 verifier,
codes once, a refresh token once (a second use ends all tokens of that consent, RFC 9700); assertions as it is told.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlencode, urlsplit

from fakes.scripted_server import WAIT_S, Handler, ScriptedServer

ACCESS, REFRESH, CODE = "access-canary", "refresh-canary", "code-canary"
"""How the tokens of each kind begin: what tests look for where none may be."""


@dataclass
class Family:
    """What came of one consent: a refresh token renews into the next, within one of these."""

    who: str
    access: set[str] = field(default_factory=set)
    refresh: str = ""
    over: bool = False


class Authorization(ScriptedServer):
    """The server. `accept` and `forget` are told of access tokens that begin and cease to count."""

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.who = "ann at tracker"
        self.refuses = ""
        """The error that is answered in place of a code."""
        self.iss: str | None = None
        """What it says of itself; None: nothing."""
        self.redirects: set[str] = set()
        self.expires_in: int | None = 3600
        self.refreshes = True
        """Whether it gives refresh tokens."""
        self.answer: tuple[int, dict[str, Any]] | None = None
        """What the token endpoint says in place of a token."""
        self.revoking: tuple[int, dict[str, Any]] = (200, {})
        """What the revocation endpoint says."""
        self.gate: threading.Event | None = None
        """What all but codes wait for, once they were carried out."""
        self.holding = threading.Event()
        """Set while one waits."""
        self.assertion: Callable[[str], bool] | None = None
        """Whether an assertion is a good one."""
        self.asked: list[dict[str, str]] = []
        self.seen: list[dict[str, str]] = []
        self.revoked: list[str] = []
        self.accepted: set[str] = set()
        """Access tokens that count."""
        self._codes: dict[str, dict[str, str]] = {}
        self._families: dict[str, Family] = {}
        self._made = 0
        super().__init__(_handler(self))

    def close(self) -> None:
        """Ends it, and lets go of whoever waits."""
        if self.gate is not None:
            self.gate.set()
        super().close()

    def granted(self, grant: str) -> list[dict[str, str]]:
        """Requests for tokens with that grant."""
        return [each for each in self.asked if each.get("grant_type") == grant]

    def authorize(self, given: dict[str, str]) -> str | None:
        """Where the browser goes; None: nowhere, for what it asks is wrong."""
        with self._lock:
            self.seen.append(given)
            wrong = given.get("redirect_uri") not in self.redirects or given.get("client_id") != "moorage"
            if wrong or given.get("response_type") != "code" or given.get("code_challenge_method") != "S256":
                return None
            back = {"state": given["state"]} | ({"iss": self.iss} if self.iss is not None else {})
            if self.refuses:
                return f"{given['redirect_uri']}?{urlencode(back | {'error': self.refuses})}"
            code = self._name(CODE)
            self._codes[code] = given | {"who": self.who}
            return f"{given['redirect_uri']}?{urlencode(back | {'code': code})}"

    def token(self, form: dict[str, str], headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """One request at the token endpoint."""
        with self._lock:
            self.asked.append(form)
            if self.answer is not None:
                return self.answer
            match form.get("grant_type"):
                case "authorization_code" if self._known(form, headers):
                    return self._coded(form)
                case "refresh_token" if self._known(form, headers):
                    return self._renewed(form)
                case (
                    "client_credentials"
                    | "urn:ietf:params:oauth:grant-type:token-exchange"
                    | ("urn:ietf:params:oauth:grant-type:jwt-bearer")
                ):
                    return self._exchanged(form)
                case "authorization_code" | "refresh_token":
                    return 401, {"error": "invalid_client"}
            return 400, {"error": "unsupported_grant_type"}

    def revoke(self, form: dict[str, str]) -> None:
        """One request at the revocation endpoint."""
        with self._lock:
            self.revoked.append(form.get("token", ""))
            found = self._families.get(form.get("token", ""))
            if found is not None:
                self._end(found)

    def expire(self) -> None:
        """No access token counts any more; refresh tokens do."""
        with self._lock:
            self.accepted.clear()

    def withdraw(self) -> None:
        """Its users end every consent, there."""
        with self._lock:
            for each in self._families.values():
                self._end(each)

    def _known(self, form: dict[str, str], headers: dict[str, str]) -> bool:
        given = base64.b64decode(headers.get("authorization", "Basic ")[6:]).decode()
        pair = (
            tuple(map(unquote_plus, given.split(":", 1)))
            if given
            else (form.get("client_id"), form.get("client_secret"))
        )
        return pair == ("moorage", self.secret)

    def _coded(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        asked = self._codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if asked is None or challenge != asked["code_challenge"] or form.get("redirect_uri") != asked["redirect_uri"]:
            return 400, {"error": "invalid_grant", "error_description": f"of {form.get('code')}"}
        if form.get("resource") != asked.get("resource"):
            return 400, {"error": "invalid_target"}
        return 200, self._given(Family(asked["who"]))

    def _renewed(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        found = self._families.get(form.get("refresh_token", ""))
        if found is None or found.over or found.refresh != form["refresh_token"]:
            if found is not None:
                self._end(found)  # somebody uses it a second time
            return 400, {"error": "invalid_grant"}
        return 200, self._given(found)

    def _exchanged(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        shown = form.get("client_assertion") or form.get("subject_token") or form.get("assertion") or ""
        if self.assertion is None or not self.assertion(shown):
            return 400, {"error": "invalid_grant", "error_description": f"of {shown}"}
        return 200, self._given(Family("workload"))

    def _given(self, family: Family) -> dict[str, Any]:
        access = self._name(ACCESS)
        family.access.add(access)
        self.accepted.add(access)
        said: dict[str, Any] = {"access_token": access, "token_type": "Bearer"}
        if self.expires_in is not None:
            said["expires_in"] = self.expires_in
        if self.refreshes and family.who != "workload":
            family.refresh = said["refresh_token"] = self._name(REFRESH)
            self._families[family.refresh] = family
        return said

    def _end(self, family: Family) -> None:
        family.over = True
        self.accepted -= family.access

    def _name(self, kind: str) -> str:
        self._made += 1
        return f"{kind}-{self._made}"


def serving(secret: str) -> contextlib.closing[Authorization]:
    """A server for as long as the context lasts."""
    return contextlib.closing(Authorization(secret))


def _handler(server: Authorization) -> type[Handler]:
    class Signing(Handler):
        def do_GET(self) -> None:
            place = urlsplit(self.path)
            to = server.authorize(dict(parse_qsl(place.query))) if place.path == "/authorize" else None
            self.answer(302 if to else 400, **({"location": to} if to else {}))

        def do_POST(self) -> None:
            form, headers = dict(parse_qsl(self.body().decode())), self.lowered()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                if self.path == "/revoke":
                    server.revoke(form)
                    status, said = server.revoking
                    self.answer_json(status, said)
                    return
                status, said = server.token(form, headers)
                if server.gate is not None and form.get("grant_type") != "authorization_code":
                    server.holding.set()
                    server.gate.wait(WAIT_S)
                self.answer_json(status, said)

    return Signing
