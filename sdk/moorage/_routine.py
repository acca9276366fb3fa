"""`Routine`: an agent that runs by itself, written in Python. Layer: SDK, public."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]


class Routine:
    """A Routine manifest as a program makes it.

        Routine(agent="triage", schedule="0 6 * * 1-5", input="Look through what is new.", on_failure="retry").deploy()

    `name`: its own, else the agent's. When: `schedule` (five cron fields in `time_zone`), `every` (`15m`) or `at=` an instant with its
    offset. `input`: a text, or input items; or `protocol="invocations"` and `body`, the JSON object that is posted to the agent.
    `more`: any other field of the manifest in Python's writing, as `missed_runs="all"` or
    `alerts=[{"name": "ops", "url": {"secret": "ops", "key": "webhook"}}]`; what is inside of one is written as in the manifest.
    """

    def __init__(
        self,
        *,
        agent: str,
        name: str | None = None,
        schedule: str | None = None,
        every: str | None = None,
        time_zone: str = "UTC",
        input: str | Sequence[Json] | None = None,
        timeout_minutes: int = 30,
        on_failure: str = "alert",
        **more: Any,
    ) -> None:
        spec: Json = {
            "agent": agent,
            "schedule": schedule,
            "every": every,
            "time_zone": time_zone,
            "input" if input is None or isinstance(input, str) else "items": input,
            "timeout_minutes": timeout_minutes,
            "on_failure": on_failure,
            **more,
        }
        self.name = name or agent
        self.manifest: Json = {
            "apiVersion": "moorage.dev/v1alpha1",
            "kind": "Routine",
            "metadata": {"name": self.name},
            "spec": {_camel(key): value for key, value in spec.items() if value is not None},
        }

    def deploy(self, *, url: str | None = None, key: str | None = None) -> Json:
        """Applies it to a platform, and returns the routine as `GET /v1/routines/NAME` has it.

        `url` and `key`: else MOORAGE_URL and MOORAGE_API_KEY, else what `moorage login` or `moorage dev` kept. Blocks; in async code
        `await client.apply_routine(routine.manifest)`. Raises Misuse naming a wrong field before anything is sent, ApiStatusError for what
        the platform refuses, NotReady, ConnectionLost.
        """
        from moorage._blocking import Client
        from moorage.cli import connection

        found = connection.find(url, key, os.environ)
        with Client(url=found.url, key=found.key) as client:
            return client.apply_routine(self.manifest)


def _camel(name: str) -> str:
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), name)
