"""The stock client's own reading of a stream: its state machine, fed without a connection."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, cast

from openai import omit
from openai._models import construct_type
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent


def read_by_stock_client(events: Iterable[dict[str, Any]]) -> Any:
    """Raises what `responses.stream()` would raise; returns its completed response, or None when there is none."""
    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=omit, text_format=omit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pydantic's, about values a hostile agent put into typed fields
        for event in events:
            state.handle_event(cast(Any, construct_type(type_=cast(Any, ResponseStreamEvent), value=event)))
    return state._completed_response
