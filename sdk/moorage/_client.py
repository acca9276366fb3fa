"""The client of a Moorage platform: `AsyncClient`. Its blocking face is `_blocking.Client`. Layer: SDK, public.

For an agent's answers the stock `openai` client is all one needs; this one adds what that cannot do: deploying, sessions, keys, the audit
log, reading a stream again after the connection broke.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx2

from moorage import _deploy, _errors, _runs
from moorage._transport import Http

Json = dict[str, Any]

ENDINGS = frozenset({"response.completed", "response.failed", "response.incomplete"})
READINESS = 64 * 1024  # bytes that a gateway says of itself, at most
PATIENCE = 60.0  # seconds a follower goes on trying to reach a platform that is gone


class AsyncClient:
    """One platform, one key. Raises what `moorage._errors` lists.

    `transport` is httpx2's own seam: another transport (ASGI, mock) serves tests and embedding.
    """

    def __init__(
        self,
        *,
        url: str,
        key: str | None = None,
        timeout: float = 600.0,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._http = Http(url, key, timeout=timeout, transport=transport)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._http.aclose()

    async def readiness(self) -> Json:
        """What a gateway says of itself, ready or not: `status`, and a word for each part it needs (`ok`, or what went wrong)."""
        status, found = await self._http.look("/readyz", limit=READINESS)
        if status in (200, 503) and isinstance(found, dict) and isinstance(found.get("status"), str):
            return found
        if isinstance(found, dict) and "error" in found:
            raise _errors.of_answer(status, json.dumps(found).encode(), None)
        raise _errors.ConnectionLost(
            f"What answers at {self.url} is no gateway of Moorage (status {status}).",
            hint="Check that --url names a Moorage gateway.",
        )

    # Agents

    async def list_agents(self) -> list[Json]:
        """The agents that this key may use."""
        return _data(await self._http.json("GET", "/v1/agents"))

    async def get_agent(self, name: str) -> Json:
        """One agent with its conditions."""
        return _object(await self._http.json("GET", f"/v1/agents/{_seg(name)}"))

    async def delete_agent(self, name: str) -> Json:
        """Deletes an agent; its sessions are no longer reachable."""
        return _object(await self._http.json("DELETE", f"/v1/agents/{_seg(name)}"))

    async def deploy(
        self, folder: str | Path, *, timeout: float = 600.0, progress: _deploy.Progress = lambda stage: None
    ) -> list[Json]:
        """Deploys every agent of `folder`'s agent.yaml, and waits until all are ready. Raises Misuse, NotReady."""
        manifests = _deploy.read(Path(folder))
        return [await _deploy.deploy(self._http, manifest, progress, timeout=timeout) for manifest in manifests]

    async def agent_logs(self, name: str, *, follow: bool = False, tail: int = 100) -> AsyncIterator[Json]:
        """The last `tail` log lines of an agent's sandboxes, oldest first; `follow` goes on with new ones until closed."""
        async with self._lines(f"/v1/agents/{_seg(name)}/logs", follow, tail, None) as lines:
            async for line in lines:
                yield line

    async def session_logs(
        self, session: str, *, agent: str | None = None, follow: bool = False, tail: int = 100
    ) -> AsyncIterator[Json]:
        """The same of one session's sandbox."""
        async with self._lines(f"/v1/sessions/{_seg(session)}/logs", follow, tail, agent) as lines:
            async for line in lines:
                yield line

    def _lines(
        self, path: str, follow: bool, tail: int, agent: str | None
    ) -> AbstractAsyncContextManager[AsyncIterator[Any]]:
        params = {"follow": "true" if follow else None, "tail": tail, "agent": agent}
        return self._http.events("GET", path, params=params, silence=None)  # an agent may be silent for days

    # Responses

    async def create_response(self, agent: str, input: str | list[Json], **fields: Any) -> Json:
        """A response once it has ended, or, with `background=True`, once it is accepted."""
        body = {"model": agent, "input": input, **fields}
        return _object(await self._http.json("POST", f"{_responses(agent)}", body=body))

    async def stream_response(self, agent: str, input: str | list[Json], **fields: Any) -> AsyncIterator[Json]:
        """Events of a new response up to its end. A broken connection is read again from its cursor, without a gap or repeat."""
        body = {"model": agent, "input": input, "stream": True, **fields}
        async with aclosing(self._reading(agent, None, -1, body)) as events:
            async for event in events:
                yield event

    async def follow_response(self, agent: str, response_id: str, *, after: int = -1) -> AsyncGenerator[Json, None]:
        """Events of a response with a sequence number over `after`, up to its end; survives a broken connection."""
        async with aclosing(self._reading(agent, response_id, after, None)) as events:
            async for event in events:
                yield event

    async def get_response(self, agent: str, response_id: str) -> Json:
        """A response as it stands."""
        return _object(await self._http.json("GET", _responses(agent, response_id)))

    async def cancel_response(self, agent: str, response_id: str) -> Json:
        """Cancels a running response; the response with its outcome."""
        return _object(await self._http.json("POST", f"{_responses(agent, response_id)}/cancel"))

    async def delete_response(self, agent: str, response_id: str) -> Json:
        """Removes a response with its log and record."""
        return _object(await self._http.json("DELETE", _responses(agent, response_id)))

    async def response_record(self, agent: str, response_id: str) -> Json:
        """What happened: attempts with their reasons and times, revision, session, trace id, feedback."""
        return _object(await self._http.json("GET", f"{_responses(agent, response_id)}/record"))

    async def response_journal(self, agent: str, response_id: str) -> Json:
        """What an ended turn asked past its sandbox's boundary, and was answered; kept for half an hour after its end. Needs the deploy
        scope."""
        return _object(await self._http.json("GET", f"{_responses(agent, response_id)}/journal"))

    async def add_feedback(
        self,
        agent: str,
        response_id: str,
        *,
        rating: str | None = None,
        score: float | None = None,
        comment: str | None = None,
    ) -> Json:
        """Keeps feedback with a response: `rating` positive, negative or neutral, or a score."""
        body = {k: v for k, v in {"rating": rating, "score": score, "comment": comment}.items() if v is not None}
        return _object(await self._http.json("POST", f"{_responses(agent, response_id)}/feedback", body=body))

    # Sessions

    async def list_sessions(self, *, agent: str | None = None, status: str | None = None) -> list[Json]:
        """The caller's sessions, newest first."""
        found: list[Json] = []
        after: str | None = None
        while True:
            page = await self._http.json(
                "GET", "/v1/sessions", params={"agent": agent, "status": status, "after": after}
            )
            found += _data(page)
            if not page.get("has_more") or not page["data"]:
                return found
            after = page["data"][-1]["id"]

    async def get_session(self, session: str, *, agent: str | None = None) -> Json:
        """One session."""
        return _object(await self._http.json("GET", f"/v1/sessions/{_seg(session)}", params={"agent": agent}))

    async def create_session(self, agent: str, session: str | None = None) -> Json:
        """A session without a turn; its own existing one when the id is taken by the caller."""
        body = {"agent": agent} | ({"agent_session_id": session} if session else {})
        return _object(await self._http.json("POST", "/v1/sessions", body=body))

    async def stop_session(self, session: str, *, agent: str | None = None) -> Json:
        """Lets the sandbox go; the workspace stays, and the next call wakes it."""
        return _object(await self._http.json("POST", f"/v1/sessions/{_seg(session)}/stop", params={"agent": agent}))

    async def delete_session(self, session: str, *, agent: str | None = None) -> Json:
        """Ends a session with its responses and files."""
        return _object(await self._http.json("DELETE", f"/v1/sessions/{_seg(session)}", params={"agent": agent}))

    async def list_checkpoints(self, session: str, *, agent: str | None = None) -> list[Json]:
        """The session's checkpoints, newest first."""
        path = f"/v1/sessions/{_seg(session)}/checkpoints"
        return _data(await self._http.json("GET", path, params={"agent": agent}))

    async def checkpoint_session(self, session: str, *, agent: str | None = None) -> Json:
        """Makes a checkpoint of the session's files as they are now."""
        path = f"/v1/sessions/{_seg(session)}/checkpoints"
        return _object(await self._http.json("POST", path, params={"agent": agent}))

    async def restore_session(self, session: str, checkpoint: str | None = None, *, agent: str | None = None) -> Json:
        """Puts a checkpoint's files (the newest one's) in place of the session's; the checkpoint."""
        path, body = f"/v1/sessions/{_seg(session)}/restore", {"checkpoint": checkpoint} if checkpoint else {}
        return _object(await self._http.json("POST", path, body=body, params={"agent": agent}))

    async def fork_session(
        self, session: str, *, checkpoint: str | None = None, to: str | None = None, agent: str | None = None
    ) -> Json:
        """A new session (of id `to`) that begins with a checkpoint's files, else with those of now."""
        given = {"checkpoint": checkpoint, "agent_session_id": to}
        body = {name: value for name, value in given.items() if value}
        path = f"/v1/sessions/{_seg(session)}/fork"
        return _object(await self._http.json("POST", path, body=body, params={"agent": agent}))

    # Keys and audit

    async def create_key(
        self,
        *,
        name: str = "",
        user: str | None = None,
        agents: Sequence[str] | None = None,
        scopes: Sequence[str] | None = None,
    ) -> Json:
        """A new API key; its text is in the answer, and nowhere else ever again."""
        given = {"name": name or None, "user": user, "agents": agents, "scopes": scopes}
        body = {
            k: list(v) if isinstance(v, Sequence) and not isinstance(v, str) else v
            for k, v in given.items()
            if v is not None
        }
        return _object(await self._http.json("POST", "/v1/keys", body=body))

    async def list_keys(self) -> list[Json]:
        """The tenant's keys, without their text."""
        return _data(await self._http.json("GET", "/v1/keys"))

    async def revoke_key(self, key_id: str) -> Json:
        """Ends a key everywhere within seconds."""
        return _object(await self._http.json("DELETE", f"/v1/keys/{_seg(key_id)}"))

    # Toolboxes

    async def list_toolboxes(self) -> list[Json]:
        """The tenant's toolboxes."""
        return _data(await self._http.json("GET", "/v1/toolboxes"))

    async def list_tools(self, toolbox: str) -> Json:
        """Every tool of a toolbox in `data`; `unavailable`: why a server told none; `left_out`: what of an API, or of the
        manifest's examples, is no tool."""
        return _object(await self._http.json("GET", f"/v1/toolboxes/{_seg(toolbox)}/tools"))

    async def call_tool(self, toolbox: str, tool: str, arguments: Mapping[str, Any]) -> Json:
        """Runs one tool, each time: MCP's result of it, with `content` and `isError`."""
        body = {"tool": tool, "arguments": dict(arguments)}
        return _object(
            _object(await self._http.json("POST", f"/v1/toolboxes/{_seg(toolbox)}/call", body=body))["result"]
        )

    async def list_consents(self, *, all_users: bool = False) -> list[Json]:
        """What the caller has consented to; for operators, what all users of the tenant have."""
        found: list[Json] = []
        after: str | None = None
        while True:
            page = await self.list_consents_page(all_users=all_users, limit=1000, after=after)
            found += _data(page)
            after = page.get("next")
            if after is None:
                return found

    async def list_consents_page(
        self, *, all_users: bool = False, user: str | None = None, limit: int = 100, after: str | None = None
    ) -> Json:
        """Up to `limit` of them, at most 1,000; for operators also those of one `user`. `next` of the page is `after` of the following one,
        and None with the last."""
        params = {"all": "true" if all_users else None, "user": user, "limit": limit, "after": after}
        return _object(await self._http.json("GET", "/v1/oauth/consents", params=params))

    async def revoke_consent(self, toolbox: str, upstream: str, *, user: str | None = None) -> Json:
        """Ends a consent of the caller's; for operators, of another `user`."""
        path = f"/v1/oauth/consents/{_seg(toolbox)}/{_seg(upstream)}"
        return _object(await self._http.json("DELETE", path, params={"user": user} if user is not None else None))

    # Routines

    async def list_routines(self) -> list[Json]:
        """The tenant's routines."""
        return _data(await self._http.json("GET", "/v1/routines"))

    async def get_routine(self, routine: str) -> Json:
        """One routine: its next due times, the run that goes on, the last one."""
        return _object(await self._http.json("GET", f"/v1/routines/{_seg(routine)}"))

    async def apply_routine(self, manifest: Json, *, timeout: float = 30.0) -> Json:
        """Applies a Routine manifest; the routine, once the platform has it so. Raises Misuse naming a wrong field, NotReady after
        `timeout` seconds."""
        return await _runs.apply(self._http, manifest, timeout=timeout)

    async def delete_routine(self, routine: str) -> Json:
        """Takes a routine away that came through the API; what runs of it is cancelled."""
        return _object(await self._http.json("DELETE", f"/v1/routines/{_seg(routine)}"))

    async def list_runs(self, routine: str, *, limit: int = 20) -> list[Json]:
        """Its runs, the newest first."""
        return _data(await self._http.json("GET", f"/v1/routines/{_seg(routine)}/runs", params={"limit": limit}))

    async def run_routine(self, routine: str) -> Json:
        """Runs it now: the run. Refused while another one goes on."""
        return _object(await self._http.json("POST", f"/v1/routines/{_seg(routine)}/run"))

    async def follow_run(self, routine: str, run: str) -> AsyncGenerator[Json, None]:
        """What a run does, up to its end: events of its responses; `routine.progress` whenever its `progress` is another one; last
        `routine.run` with the `run` that has ended. Raises Misuse where there is no such run."""
        async with aclosing(_runs.follow(self, routine, run)) as events:
            async for event in events:
                yield event

    async def cancel_run(self, routine: str) -> Json:
        """Ends the run that goes on, without a further try; the run as it was. Raises ApiStatusError (409) where there is none to end."""
        return _object(await self._http.json("POST", f"/v1/routines/{_seg(routine)}/cancel"))

    async def suspend_routine(self, routine: str) -> Json:
        """No due time is run from now on."""
        return _object(await self._http.json("POST", f"/v1/routines/{_seg(routine)}/suspend"))

    async def resume_routine(self, routine: str) -> Json:
        """Due times are run again, also of a routine that was stopped."""
        return _object(await self._http.json("POST", f"/v1/routines/{_seg(routine)}/resume"))

    async def audit(self, *, since: float, limit: int = 1000) -> Json:
        """The newest audit records since a time (epoch seconds), oldest first, in `data`; `has_more` when some were left out."""
        return _object(await self._http.json("GET", "/v1/audit", params={"since": max(0, int(since)), "limit": limit}))

    async def verify_audit(self) -> Json:
        """Walks every chain of audit records: `ok`, and in `data` what each one proves."""
        return _object(await self._http.json("GET", "/v1/audit/verify"))

    async def _reading(
        self, agent: str, response_id: str | None, after: int, create: Json | None
    ) -> AsyncGenerator[Json, None]:
        key = secrets.token_hex(16)  # a create that is sent again joins the turn it made the first time
        broken_since: float | None = None
        while True:
            try:
                async with self._opened(agent, response_id, after, create, key) as events:
                    async for event in events:
                        number = event.get("sequence_number")
                        if number is None or number <= after:
                            continue
                        after, broken_since = number, None
                        response_id = (event.get("response") or {}).get("id") or response_id
                        yield event
                        if event.get("type") in ENDINGS:
                            return
                raise _errors.ConnectionLost("The stream ended before the response did.")
            except (_errors.ConnectionLost, _errors.ApiStatusError) as broken:
                now = time.monotonic()
                if not _worth_trying(broken, begun=response_id is not None or broken_since is not None):
                    raise
                broken_since = now if broken_since is None else broken_since
                if now - broken_since > PATIENCE:
                    raise
                await asyncio.sleep(0.25)

    def _opened(
        self, agent: str, response_id: str | None, after: int, create: Json | None, key: str
    ) -> AbstractAsyncContextManager[AsyncIterator[Any]]:
        if response_id is None:
            return self._http.events("POST", _responses(agent), body=create, headers={"idempotency-key": key})
        params = {"stream": "true", "starting_after": after if after >= 0 else None}
        return self._http.events("GET", _responses(agent, response_id), params=params)


def _worth_trying(broken: _errors.MoorageError, *, begun: bool) -> bool:
    """Whether a broken stream may go on: refusals are final, and so is a platform that was not there to begin with."""
    if isinstance(broken, _errors.ApiStatusError):
        return begun and broken.status >= 500
    return begun or not getattr(broken, "unreachable", False)


def _seg(text: str) -> str:
    return quote(text, safe="")


def _responses(agent: str, response_id: str | None = None) -> str:
    base = f"/v1/agents/{_seg(agent)}/responses"
    return base if response_id is None else f"{base}/{_seg(response_id)}"


def _object(answer: Any) -> Json:
    return answer if isinstance(answer, dict) else {}


def _data(answer: Any) -> list[Json]:
    return list(_object(answer).get("data") or [])
