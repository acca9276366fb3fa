"""`Client`: the blocking face of `AsyncClient`. Layer: SDK, public. Nothing but calls of the async face, so the two cannot differ."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx2

from moorage import _deploy
from moorage._client import AsyncClient

T = TypeVar("T")
Json = dict[str, Any]


WAKE_S = 0.25
"""A signal that comes just before the loop begins to wait does not end that wait; so the loop waits no longer than this."""


class Client:
    """The blocking face of `AsyncClient`: the same methods, the same errors; streams are iterators. Not for use inside an event loop."""

    def __init__(
        self,
        *,
        url: str,
        key: str | None = None,
        timeout: float = 600.0,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        # With a factory the runner leaves the thread's current event loop, which is not ours, as it is.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._wake()
        self._async = AsyncClient(url=url, key=key, timeout=timeout, transport=transport)
        self.url = self._async.url

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes all connections."""
        with suppress(RuntimeError):  # already closed
            self._runner.run(self._async.aclose())
        self._runner.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs one coroutine of the async face."""
        try:
            return self._runner.run(work)
        except asyncio.CancelledError as interrupted:
            # Nobody here cancels but Ctrl-C; one that came while the runner began is told as this.
            raise KeyboardInterrupt from interrupted

    def _wake(self) -> None:
        self._runner.get_loop().call_later(WAKE_S, self._wake)

    def iterate(self, stream: AsyncIterator[T]) -> Iterator[T]:
        """A stream of the async face as a plain iterator; leaving it closes the stream."""
        try:
            while True:
                try:
                    yield self.run(_next(stream))
                except StopAsyncIteration:
                    return
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                self.run(close())

    def readiness(self) -> Json:
        """See `AsyncClient.readiness`."""
        return self.run(self._async.readiness())

    def list_agents(self) -> list[Json]:
        """See `AsyncClient.list_agents`."""
        return self.run(self._async.list_agents())

    def get_agent(self, name: str) -> Json:
        """See `AsyncClient.get_agent`."""
        return self.run(self._async.get_agent(name))

    def delete_agent(self, name: str) -> Json:
        """See `AsyncClient.delete_agent`."""
        return self.run(self._async.delete_agent(name))

    def deploy(
        self, folder: str | Path, *, timeout: float = 600.0, progress: _deploy.Progress = lambda stage: None
    ) -> list[Json]:
        """See `AsyncClient.deploy`."""
        return self.run(self._async.deploy(folder, timeout=timeout, progress=progress))

    def agent_logs(self, name: str, *, follow: bool = False, tail: int = 100) -> Iterator[Json]:
        """See `AsyncClient.agent_logs`."""
        return self.iterate(self._async.agent_logs(name, follow=follow, tail=tail))

    def session_logs(
        self, session: str, *, agent: str | None = None, follow: bool = False, tail: int = 100
    ) -> Iterator[Json]:
        """See `AsyncClient.session_logs`."""
        return self.iterate(self._async.session_logs(session, agent=agent, follow=follow, tail=tail))

    def create_response(self, agent: str, input: str | list[Json], **fields: Any) -> Json:
        """See `AsyncClient.create_response`."""
        return self.run(self._async.create_response(agent, input, **fields))

    def stream_response(self, agent: str, input: str | list[Json], **fields: Any) -> Iterator[Json]:
        """See `AsyncClient.stream_response`."""
        return self.iterate(self._async.stream_response(agent, input, **fields))

    def follow_response(self, agent: str, response_id: str, *, after: int = -1) -> Iterator[Json]:
        """See `AsyncClient.follow_response`."""
        return self.iterate(self._async.follow_response(agent, response_id, after=after))

    def get_response(self, agent: str, response_id: str) -> Json:
        """See `AsyncClient.get_response`."""
        return self.run(self._async.get_response(agent, response_id))

    def cancel_response(self, agent: str, response_id: str) -> Json:
        """See `AsyncClient.cancel_response`."""
        return self.run(self._async.cancel_response(agent, response_id))

    def delete_response(self, agent: str, response_id: str) -> Json:
        """See `AsyncClient.delete_response`."""
        return self.run(self._async.delete_response(agent, response_id))

    def response_record(self, agent: str, response_id: str) -> Json:
        """See `AsyncClient.response_record`."""
        return self.run(self._async.response_record(agent, response_id))

    def response_journal(self, agent: str, response_id: str) -> Json:
        """See `AsyncClient.response_journal`."""
        return self.run(self._async.response_journal(agent, response_id))

    def add_feedback(
        self,
        agent: str,
        response_id: str,
        *,
        rating: str | None = None,
        score: float | None = None,
        comment: str | None = None,
    ) -> Json:
        """See `AsyncClient.add_feedback`."""
        return self.run(self._async.add_feedback(agent, response_id, rating=rating, score=score, comment=comment))

    def list_sessions(self, *, agent: str | None = None, status: str | None = None) -> list[Json]:
        """See `AsyncClient.list_sessions`."""
        return self.run(self._async.list_sessions(agent=agent, status=status))

    def get_session(self, session: str, *, agent: str | None = None) -> Json:
        """See `AsyncClient.get_session`."""
        return self.run(self._async.get_session(session, agent=agent))

    def create_session(self, agent: str, session: str | None = None) -> Json:
        """See `AsyncClient.create_session`."""
        return self.run(self._async.create_session(agent, session))

    def stop_session(self, session: str, *, agent: str | None = None) -> Json:
        """See `AsyncClient.stop_session`."""
        return self.run(self._async.stop_session(session, agent=agent))

    def delete_session(self, session: str, *, agent: str | None = None) -> Json:
        """See `AsyncClient.delete_session`."""
        return self.run(self._async.delete_session(session, agent=agent))

    def list_checkpoints(self, session: str, *, agent: str | None = None) -> list[Json]:
        """See `AsyncClient.list_checkpoints`."""
        return self.run(self._async.list_checkpoints(session, agent=agent))

    def checkpoint_session(self, session: str, *, agent: str | None = None) -> Json:
        """See `AsyncClient.checkpoint_session`."""
        return self.run(self._async.checkpoint_session(session, agent=agent))

    def restore_session(self, session: str, checkpoint: str | None = None, *, agent: str | None = None) -> Json:
        """See `AsyncClient.restore_session`."""
        return self.run(self._async.restore_session(session, checkpoint, agent=agent))

    def fork_session(
        self, session: str, *, checkpoint: str | None = None, to: str | None = None, agent: str | None = None
    ) -> Json:
        """See `AsyncClient.fork_session`."""
        return self.run(self._async.fork_session(session, checkpoint=checkpoint, to=to, agent=agent))

    def create_key(
        self,
        *,
        name: str = "",
        user: str | None = None,
        agents: Sequence[str] | None = None,
        scopes: Sequence[str] | None = None,
    ) -> Json:
        """See `AsyncClient.create_key`."""
        return self.run(self._async.create_key(name=name, user=user, agents=agents, scopes=scopes))

    def list_keys(self) -> list[Json]:
        """See `AsyncClient.list_keys`."""
        return self.run(self._async.list_keys())

    def list_routines(self) -> list[Json]:
        """See `AsyncClient.list_routines`."""
        return self.run(self._async.list_routines())

    def get_routine(self, routine: str) -> Json:
        """See `AsyncClient.get_routine`."""
        return self.run(self._async.get_routine(routine))

    def apply_routine(self, manifest: Json, *, timeout: float = 30.0) -> Json:
        """See `AsyncClient.apply_routine`."""
        return self.run(self._async.apply_routine(manifest, timeout=timeout))

    def delete_routine(self, routine: str) -> Json:
        """See `AsyncClient.delete_routine`."""
        return self.run(self._async.delete_routine(routine))

    def list_runs(self, routine: str, *, limit: int = 20) -> list[Json]:
        """See `AsyncClient.list_runs`."""
        return self.run(self._async.list_runs(routine, limit=limit))

    def run_routine(self, routine: str) -> Json:
        """See `AsyncClient.run_routine`."""
        return self.run(self._async.run_routine(routine))

    def follow_run(self, routine: str, run: str) -> Iterator[Json]:
        """See `AsyncClient.follow_run`."""
        return self.iterate(self._async.follow_run(routine, run))

    def cancel_run(self, routine: str) -> Json:
        """See `AsyncClient.cancel_run`."""
        return self.run(self._async.cancel_run(routine))

    def suspend_routine(self, routine: str) -> Json:
        """See `AsyncClient.suspend_routine`."""
        return self.run(self._async.suspend_routine(routine))

    def resume_routine(self, routine: str) -> Json:
        """See `AsyncClient.resume_routine`."""
        return self.run(self._async.resume_routine(routine))

    def list_toolboxes(self) -> list[Json]:
        """See `AsyncClient.list_toolboxes`."""
        return self.run(self._async.list_toolboxes())

    def list_tools(self, toolbox: str) -> Json:
        """See `AsyncClient.list_tools`."""
        return self.run(self._async.list_tools(toolbox))

    def call_tool(self, toolbox: str, tool: str, arguments: Mapping[str, Any]) -> Json:
        """See `AsyncClient.call_tool`."""
        return self.run(self._async.call_tool(toolbox, tool, arguments))

    def list_consents(self, *, all_users: bool = False) -> list[Json]:
        """See `AsyncClient.list_consents`."""
        return self.run(self._async.list_consents(all_users=all_users))

    def list_consents_page(
        self, *, all_users: bool = False, user: str | None = None, limit: int = 100, after: str | None = None
    ) -> Json:
        """See `AsyncClient.list_consents_page`."""
        return self.run(self._async.list_consents_page(all_users=all_users, user=user, limit=limit, after=after))

    def revoke_consent(self, toolbox: str, upstream: str, *, user: str | None = None) -> Json:
        """See `AsyncClient.revoke_consent`."""
        return self.run(self._async.revoke_consent(toolbox, upstream, user=user))

    def revoke_key(self, key_id: str) -> Json:
        """See `AsyncClient.revoke_key`."""
        return self.run(self._async.revoke_key(key_id))

    def audit(self, *, since: float, limit: int = 1000) -> Json:
        """See `AsyncClient.audit`."""
        return self.run(self._async.audit(since=since, limit=limit))

    def verify_audit(self) -> Json:
        """See `AsyncClient.verify_audit`."""
        return self.run(self._async.verify_audit())


async def _next(stream: AsyncIterator[T]) -> T:
    return await anext(stream)
