"""Every failure of the shim that crosses one of its own borders. Layer: the floor of this package.

ShimFault
  ├─ Refused       a rule of turns.md §3 says no: status and word of the answer
  ├─ NotReady      the agent process does not serve (yet, or any more)
  ├─ NoProof       the pod's token cannot be read: gateways cannot be asked
  └─ ControlLost   init or its channel is gone: the sandbox is over
"""

from __future__ import annotations

from moorage_api.wire.shim import Refusal


class ShimFault(Exception):
    """A failure the shim knows how to answer."""


class Refused(ShimFault):
    """A call that must not be done. Nothing was changed by it."""

    def __init__(self, word: Refusal, detail: str, *, status: int = 409) -> None:
        super().__init__(detail)
        self.word: Refusal = word
        self.detail = detail
        self.status = status


class NotReady(ShimFault):
    """The agent does not answer its readiness path; `str()` says what was seen."""


class NoProof(ShimFault):
    """What this shim would show to gateways cannot be read; `str()` holds nothing of it."""


class ControlLost(ShimFault):
    """The control channel to init is closed or broke its protocol."""
