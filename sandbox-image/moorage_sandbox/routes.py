"""HTTP to calls of the shim and of the relay, and their failures back to statuses. Layer: I/O rim, thin."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from moorage_api import tokens
from moorage_api.wire import headers as names
from moorage_api.wire.checkpoints import Restore, Save
from moorage_api.wire.shim import ALIVE, Attach, Bind, Drain, Start, Stop
from moorage_sandbox.attempt import Attempt
from moorage_sandbox.config import ShimConfig
from moorage_sandbox.errors import ControlLost, NotReady, Refused
from moorage_sandbox.output import Output
from moorage_sandbox.owner import Owner
from moorage_sandbox.relay import PREFIX, Relay
from moorage_sandbox.server import Answer, Request
from moorage_sandbox.shim import Busy, Shim

Call = TypeVar("Call", bound=BaseModel)

SECRET = names.SECRET.encode()
SESSION = names.SESSION.encode()
EPOCH = names.EPOCH.encode()


class BadCall(Exception):
    """A body that is not what the path takes."""


class Routes:
    """The handler of the shim's port."""

    def __init__(self, config: ShimConfig, shim: Shim, relay: Relay, output: Output) -> None:
        self._secret_sha256 = config.secret_sha256 or tokens.secret_sha256(config.secret)
        self._max_body = config.limits.body
        self._shim = shim
        self._relay = relay
        self._output = output

    async def handle(self, request: Request, answer: Answer) -> None:
        """Serves one request; every refusal of the shim becomes its status here. That it lives is said to everybody, and nothing else."""
        if (request.method, request.path) == ("GET", ALIVE):
            _say(answer, 200, {"alive": True})
            return
        shown = hashlib.sha256(request.header(SECRET)).hexdigest()
        if not hmac.compare_digest(shown, self._secret_sha256):
            answer.send(401, b'{"error":"unauthenticated"}')
            return
        try:
            await self._route(request, answer)
        except Refused as refusal:
            _say(answer, refusal.status, {"error": refusal.word, "detail": refusal.detail})
        except Busy:
            _say(answer, 409, {"status": "busy"})
        except BadCall as error:
            _say(answer, 400, {"error": "invalid", "detail": str(error)})
        except (NotReady, ControlLost) as fault:
            body = {"error": "not_ready", "detail": str(fault), "log_tail": self._output.tail()}
            _say(answer, 503, body)

    async def _route(self, request: Request, answer: Answer) -> None:
        if request.path.startswith(f"{PREFIX}/"):
            epoch = request.header(EPOCH)
            number = int(epoch) if epoch.isdigit() and len(epoch) < 19 else 0
            async with self._shim.relaying(request.header(SESSION).decode("latin-1"), number) as bound:
                await self._relay.serve(request, answer, bound)
            return
        match request.method, request.path:
            case "POST", "/shim/start":
                await _follow(*await self._shim.start(await self._body(request, Start), answer))
            case "POST", "/shim/attach":
                await _follow(*self._shim.attach(await self._body(request, Attach), answer))
            case "POST", "/shim/bind":
                self._bind(await self._body(request, Bind), answer)
            case "POST", "/shim/stop":
                await self._shim.stop(await self._body(request, Stop))
                _say(answer, 200, {"stopped": True})
            case "POST", "/shim/drain":
                self._shim.drain(await self._body(request, Drain))
                _say(answer, 200, {"status": "draining"})
            case "POST", "/shim/checkpoint":
                _say(answer, 200, (await self._shim.save(await self._body(request, Save))).model_dump())
            case "POST", "/shim/restore":
                _say(answer, 200, {"restored": await self._shim.restore(await self._body(request, Restore))})
            case "GET", "/shim/status":
                _say(answer, 200, self._shim.status())
            case _:
                _say(answer, 404, {"error": "not_found"})

    def _bind(self, call: Bind, answer: Answer) -> None:
        try:
            _say(answer, 200, self._shim.bind(call))
        except OSError as fault:
            raise NotReady(f"the volume takes no binding: {fault}") from fault

    async def _body(self, request: Request, model: type[Call]) -> Call:
        raw = await request.read(self._max_body)
        try:
            return model.model_validate(orjson.loads(raw))
        except orjson.JSONDecodeError as error:
            raise BadCall(f"the body is not JSON: {error}") from error
        except ValidationError as error:
            found = error.errors(include_input=False, include_url=False)[0]
            raise BadCall(f"{'.'.join(map(str, found['loc']))}: {found['msg']}") from error


async def _follow(attempt: Attempt, owner: Owner) -> None:
    try:
        await owner.run()
    finally:
        attempt.leave(owner)


def _say(answer: Answer, status: int, body: dict[str, Any]) -> None:
    answer.send(status, orjson.dumps(body))
