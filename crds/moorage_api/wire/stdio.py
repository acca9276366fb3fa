"""What a gateway says to the process that runs a program of a toolbox (an upstream of type `stdio`), and is told. Layer: the floor; stdlib
only, since that process may run in an image that holds nothing of the platform's.

    POST /call    {"method": "tools/call", "params": {…}, "seconds": 59.5, "most": 1048576}, with `authorization: Bearer TOKEN`
        200       the program's own message, as it stands but for its secrets; the header `x-moorage-id` has its id
        503       a Fault: the program gave no answer
        401, 400  who asks is no gateway, or asks wrongly
    GET /health   200: a program is there and has answered the handshake; else 503

`seconds` is how long the asker waits, `most` how many bytes of an answer it takes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final

CALL: Final = "/call"
HEALTH: Final = "/health"
ID_HEADER: Final = "x-moorage-id"
PORT: Final = 8100
"""Where it listens in a pod."""

MAX_MESSAGE: Final = 16 * 2**20
"""Bytes of one message of either side: what a boundary call's body may have."""
MAX_BODY: Final = MAX_MESSAGE + 64 * 1024


@dataclass(frozen=True)
class Fault:
    """Why there is no answer. `sent`: the program may have got the request; `late`: out of time; `large`: it answered, with more than is
    taken."""

    text: str
    sent: bool
    late: bool = False
    large: bool = False

    def to_json(self) -> bytes:
        """For the wire."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Fault:
        """Raises ValueError for anything else."""
        try:
            said = json.loads(data)
            return cls(str(said["text"]), bool(said["sent"]), bool(said["late"]), bool(said["large"]))
        except (KeyError, TypeError, RecursionError) as fault:
            raise ValueError("no fault") from fault
