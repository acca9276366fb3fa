"""Side effects of an agent's own code, each made once in a turn: `moorage.step`. Layer: SDK, public.

The step is begun at the sandbox's door, run here, and its outcome told to the door before anybody sees it. What the door answers decides;
outside of a turn, and outside of Moorage, a step is run and nobody remembers it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import http.client
import inspect
import json
import os
from collections.abc import Callable, Coroutine, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, overload
from urllib.parse import urlsplit

from moorage._errors import AlreadyDone, ConnectionLost, Misuse, OutcomeUnknown, StepFailed, of_answer
from moorage_api.wire.calls import MAX_STEP_NAME, MAX_STEP_RESULT, STEPS_VARIABLE
from moorage_api.wire.hop import HopError, HopPool

P = ParamSpec("P")
T = TypeVar("T")

DOOR_S = 2100.0
"""For the door to answer: longer than it waits itself for a platform that is away."""
CONNECT_S = 10.0
LATE_S = 2.0
"""For an outcome to be told although its step is being cancelled."""
MAX_ARGUMENTS = 64 * 1024
"""Bytes of arguments, as JSON, that are kept; of longer ones their digest counts."""
MAX_MESSAGE = 4096
MOST = 16 * 2**20

_within: ContextVar[str | None] = ContextVar("moorage_step", default=None)


@overload
def step(
    name: str, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
) -> Coroutine[Any, Any, T]: ...
@overload
def step(name: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
def step(name: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Runs `fn(*args, **kwargs)` once in this turn, however often its sandbox dies; a later attempt gets the recorded result.

        receipt = moorage.step("charge", charge, order, amount=12)
        receipt = await moorage.step("charge", charge_async, order, amount=12)

    `name`: 1 to 128 printable characters. A step is the same one in another attempt by its name, its arguments and the how-manieth
    of its kind it is; arguments that are no JSON do not count. The result is JSON of at most 8 MiB, and what JSON makes of it is
    what every attempt gets (a tuple becomes a list). `fn` is a plain function, or an `async def`: then the step is awaited. Steps
    may run in parallel; a step within a step is refused.

    Raises StepFailed when `fn` raised (recorded, so that every attempt goes the same way), OutcomeUnknown when an earlier attempt
    began it and died before it was known how it ended, AlreadyDone when an earlier attempt did something else under this name,
    Misuse, ApiStatusError and ConnectionLost.
    """
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_STEP_NAME or not name.isprintable():
        raise Misuse(f"A step has a name of 1 to {MAX_STEP_NAME} printable characters.")
    outer = _within.get()
    if outer is not None:
        raise Misuse(
            f"Step {name!r} is begun within step {outer!r}: a step is one effect. Call one after the other, or make {name!r} "
            "a plain function."
        )
    call = _Call(name, functools.partial(fn, *args, **kwargs), _arguments(args, kwargs))
    return _awaited(call) if _is_async(fn) else _blocking(call)


@dataclass(frozen=True)
class _Call:
    name: str
    run: Callable[[], Any]
    arguments: Any


@dataclass(frozen=True)
class _Outcome:
    """How it ended here: what the door is told, and what the agent gets."""

    said: dict[str, Any]
    result: Any = None
    failed: StepFailed | None = None
    cause: Exception | None = None

    def get(self) -> Any:
        if self.failed is not None:
            raise self.failed from self.cause
        return self.result


def _blocking(call: _Call) -> Any:
    door = os.environ.get(STEPS_VARIABLE, "")
    mark, found = _begun(call.name, *_post(door, "begin", _begin(call))) if door else ("", None)
    if found is not None:
        return found.get()
    try:
        with _inside(call.name):
            outcome = _ended(call.name, call.run())
    except Exception as fault:  # user code: whatever it raises is how the step ended
        outcome = _failed(call.name, fault)
    if mark:
        _recorded(call.name, *_post(door, "end", json.dumps({"step": mark, **outcome.said}).encode()))
    return outcome.get()


async def _awaited(call: _Call) -> Any:
    door = os.environ.get(STEPS_VARIABLE, "")
    mark, found = _begun(call.name, *await _send(door, "begin", _begin(call))) if door else ("", None)
    if found is not None:
        return found.get()
    try:
        with _inside(call.name):
            outcome = _ended(call.name, await call.run())
    except Exception as fault:  # user code: whatever it raises is how the step ended
        outcome = _failed(call.name, fault)
    if mark:
        body = json.dumps({"step": mark, **outcome.said}).encode()
        telling = asyncio.ensure_future(_send(door, "end", body))
        try:
            answer = await asyncio.shield(telling)
        except asyncio.CancelledError:
            await asyncio.wait({telling}, timeout=LATE_S)  # it is done: a later attempt should know
            telling.cancel()
            raise
        _recorded(call.name, *answer)
    return outcome.get()


# -- what is said, and what it means


def _begin(call: _Call) -> bytes:
    return json.dumps({"name": call.name, "arguments": call.arguments}).encode()


def _begun(name: str, status: int, body: bytes) -> tuple[str, _Outcome | None]:
    """The mark to report under (empty: nothing is recorded), or how it ended before. Raises what the agent is to know."""
    said = _json(name, status, body)
    if status == 503 and said.get("error", {}).get("code") == "unbound":
        return "", None
    if status != 200:
        raise of_answer(status, body, None)
    match said["state"]:
        case "run":
            return str(said["step"]), None
        case "free":
            return "", None
        case "completed":
            return "", _told(name, said["outcome"])
        case "already_done_in_earlier_attempt":
            call, outcome = said["call"], said["outcome"]
            arguments = call["arguments"] if call else None
            if outcome is None:
                raise AlreadyDone(name, arguments, known=False, result=None, failure=None)
            told = _told(name, outcome)
            raise AlreadyDone(name, arguments, known=True, result=told.result, failure=told.failed)
        case _:
            raise OutcomeUnknown(name)


def _recorded(name: str, status: int, body: bytes) -> None:
    if status != 200:
        _json(name, status, body)
        raise of_answer(status, body, None)


def _told(name: str, outcome: dict[str, Any]) -> _Outcome:
    if "error" in outcome:
        return _Outcome(outcome, failed=StepFailed(name, outcome["error"]["type"], outcome["error"]["message"]))
    return _Outcome(outcome, result=outcome["result"])


def _ended(name: str, result: Any) -> _Outcome:
    """Raises TypeError, ValueError: the function has run, and what it returned cannot be kept."""
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError("it returned an awaitable: give an `async def`, and await the step")
    try:
        text = json.dumps(result, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as fault:
        raise TypeError(f"it has run, and its result cannot be kept as JSON: {fault}") from None
    if len(text) > MAX_STEP_RESULT:
        most = f"{MAX_STEP_RESULT // 2**20} MiB of JSON are the most"
        raise ValueError(f"it has run, and {most} that a step returns: keep it in a file, and return its name")
    kept = json.loads(text)
    return _Outcome({"result": kept}, result=kept)


def _failed(name: str, fault: Exception) -> _Outcome:
    kind, message = type(fault).__name__, str(fault)[:MAX_MESSAGE]
    return _Outcome({"error": {"type": kind, "message": message}}, failed=StepFailed(name, kind, message), cause=fault)


def _arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What of the arguments counts: all as JSON, their digest where they are long, nothing where they are no JSON."""
    try:
        text = json.dumps({"args": args, "kwargs": kwargs}, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None
    if len(text) > MAX_ARGUMENTS:
        return {"sha256": hashlib.sha256(text.encode()).hexdigest()}
    return json.loads(text)


def _is_async(fn: Callable[..., Any]) -> bool:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004


def _json(name: str, status: int, body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ConnectionLost(f"Step {name!r}: the sandbox's door answered {status}, and nothing that can be read.")
    return found


@contextlib.contextmanager
def _inside(name: str) -> Iterator[None]:
    before = _within.set(name)
    try:
        yield
    finally:
        _within.reset(before)


# -- the door, on loopback: one connection an exchange, so that threads and loops need to share nothing


def _post(door: str, what: str, body: bytes) -> tuple[int, bytes]:
    place = urlsplit(door)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=DOOR_S)
    try:
        connection.request("POST", f"{place.path}/{what}", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read(MOST)
    except (OSError, http.client.HTTPException) as fault:
        raise _lost(what, fault) from fault
    finally:
        connection.close()


async def _send(door: str, what: str, body: bytes) -> tuple[int, bytes]:
    place, pool = urlsplit(door), HopPool(max_idle=0)
    head = [(b"content-type", b"application/json")]
    try:
        answer = await pool.request(
            f"{place.scheme}://{place.netloc}", "POST", f"{place.path}/{what}", head, body, connect_timeout=CONNECT_S,
            head_timeout=DOOR_S, retry_stale=False,
        )  # fmt: skip
        async with answer:
            return answer.status, await answer.read(MOST, idle=DOOR_S)
    except HopError as fault:
        raise _lost(what, fault) from fault
    finally:
        await pool.close()


def _lost(what: str, fault: Exception) -> ConnectionLost:
    if what == "begin":
        return ConnectionLost(f"The step was not begun, and did not run: the sandbox's door does not answer ({fault}).")
    return ConnectionLost(f"The step has run, and could not be recorded: the sandbox's door does not answer ({fault}).")
