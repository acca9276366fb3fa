"""How far an agent is: `moorage.progress`. Layer: SDK, public.

It is said to the sandbox's door, which answers at once and hands on the newest word; a door that does not answer costs a second once.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
from urllib.parse import urlsplit

from moorage._errors import Misuse
from moorage_api.wire.calls import MAX_PROGRESS_TEXT, STEPS_VARIABLE

DOOR_S = 1.0


def progress(text: str, *, fraction: float | None = None) -> None:
    """Says how far this turn is; people see the newest word in the view of a routine's run.

        moorage.progress("12 of 30 issues", fraction=12 / 30)

    `text`: a line; of a longer one the first 400 characters. `fraction`: of the whole that is done, brought between 0 and 1. It changes
    nothing of the turn, is kept when its sandbox dies, and is to be called from plain and from async code: it waits for nobody but the
    sandbox's own door. Outside of a turn, and outside of Moorage, nothing happens; nor does an error where the word is lost.

    Raises Misuse when `text` is no text, or `fraction` no number.
    """
    if not isinstance(text, str) or isinstance(fraction, bool) or not isinstance(fraction, int | float | None):
        raise Misuse("progress() takes a text, and a number from 0 to 1 as fraction.")
    door = os.environ.get(STEPS_VARIABLE, "")
    if not door:
        return
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * MAX_PROGRESS_TEXT]).split())
    part = None if fraction is None or not math.isfinite(fraction) else min(1.0, max(0.0, float(fraction)))
    body = json.dumps({"text": line[:MAX_PROGRESS_TEXT], "fraction": part}, ensure_ascii=False).encode()
    place = urlsplit(door)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=DOOR_S)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("POST", f"{place.path}/progress", body, {"content-type": "application/json"})
        connection.getresponse().read(1024)
