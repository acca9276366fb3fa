"""Turns what a request raises into its answer: ApiError by the one table, anything else into a 500 without internals. Plain ASGI.

Stands just below the access layer: every other layer and route simply raises. Once an answer has begun nothing can be mixed
into it, so it is broken off visibly.
"""

from __future__ import annotations

import logging
from typing import Any

from moorage_api.errors import ApiError, Kind
from moorage_api.ledger.script import Unreachable
from moorage_gateway import facts
from moorage_gateway.routes import answers
from moorage_gateway.server import Asgi
from moorage_gateway.store import StoreUnavailable

logger = logging.getLogger(__name__)


class Errors:
    """See the module."""

    def __init__(self, app: Asgi) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serves one request; never raises but for a cancelled task."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def noticed(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noticed)
            return
        except answers.CallerLeft:
            facts.of(scope).error = "caller_left"
            return
        except ApiError as error:
            found = error
        except (Unreachable, StoreUnavailable):
            found = ApiError(Kind.UNAVAILABLE, "The platform's storage does not answer; try again.", retry_after=2)
        except Exception:  # a mistake of ours: the caller gets an answer, the log its trace
            known = facts.of(scope)
            logger.exception("request %s failed unexpectedly", known.request_id)
            found = ApiError(Kind.INTERNAL, f"Something went wrong here; it is logged under {known.request_id}.")
        known = facts.of(scope)
        known.error = found.code
        if not begun:
            await answers.send_error(send, found, _own(known))
            return
        logger.warning("the answer to request %s was broken off: %s", known.request_id, found.message)
        if (exchange := answers.exchange_of(scope)) is not None:
            exchange.abort()


def _own(known: facts.Facts) -> answers.Headers:
    return [(b"x-agent-session-id", known.session_id.encode())] if known.session_id else []
