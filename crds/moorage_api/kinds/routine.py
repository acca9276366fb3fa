"""Routine: an agent that runs by itself, when a schedule says. The same manifest on a laptop and in a cluster.

Layer: the floor. These models are the only source: the JSON schema, the CRD, the reference page and the error messages are generated
from them.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from moorage_api import names, schedules, templates
from moorage_api.kinds import quantities
from moorage_api.kinds.model_endpoint import Credential
from moorage_api.kinds.values import Duration, Metadata, Part

KIND: Final = "Routine"

MOST_INPUT = 256 * 1024
"""Bytes of `input`, `items` or `body`: an object of Kubernetes is at most 1.5 MiB, and a catalog entry is held by every gateway."""
SHORTEST_S = 10.0
"""Seconds: shortest `every`."""
LONGEST_DEADLINE_S = 86_400.0
"""Seconds: longest `startingDeadline`. All due times within it are computed after an absence: 1,440 of a minute's schedule."""


class Retries(Part):
    """What `onFailure: retry` does. A crash of a sandbox is no failure: the same turn goes on from where it died."""

    limit: int = Field(default=2, ge=1, le=20)
    """Further turns of one run, each told how the one before ended."""
    backoff: Duration = "1m"
    """Before the first of them; each further one waits twice as long."""
    max_backoff: Duration = "1h"
    """Longest of these waits."""


class AlertTarget(Part):
    """Where people are told. The whole URL is a secret: who knows it may write there."""

    name: str
    """Unique in the routine, as a name of an agent."""
    type: Literal["webhook", "slack", "teams"] = "webhook"
    """`webhook`: generic JSON, signed; `slack`: an incoming webhook's message; `teams`: an adaptive card."""
    url: Credential
    """Where its URL is. `http://`, and private addresses, only where the platform's `allowedUpstreams` names the host."""
    signing: Credential | None = None
    """The key of the signature in `webhook-signature`, as Standard Webhooks writes it. Default: not signed."""

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        return _name(value)


class RoutineSpec(Part):
    """Which agent, when, with what, and what follows. Needed: `agent` and one of `schedule`, `every` and `at`."""

    agent: str
    """The HostedAgent, of the same tenant."""
    schedule: str | None = Field(default=None, max_length=schedules.LONGEST)
    """Five cron fields (`0 6 * * 1-5`) or a macro like `@daily`, in `timeZone`."""
    time_zone: str = Field(default="UTC", max_length=64)
    """IANA name, as `Europe/Berlin`. Where neither minute nor hour begins with `*`, what clocks skip is due when they have been changed,
    and what they repeat is due once."""
    every: Duration | None = None
    """A period, at least 10s, counted from 1970: `15m` is due at every quarter of an hour."""
    at: str | None = Field(default=None, max_length=64)
    """Once, an instant with its offset: `2027-01-31T06:00:00+01:00`."""
    protocol: Literal["responses", "invocations"] = "responses"
    """How it is called: as a background turn with `input` or `items`; or by one `POST /invocations` with `body`, which the agent must
    serve. Such a run has no journal: one that is cut off has failed, and nobody knows what became of it."""
    input: str | None = Field(default=None, max_length=MOST_INPUT)
    """What is said to it. May hold `{{ scheduledTime }}`, `{{ routine }}`, `{{ lastRun.outcome }}`,
    `{{ lastRun.scheduledTime }}`, `{{ lastRun.endedAt }}`, `{{ lastRun.responseId }}`, `{{ lastRun.output }}` and `{{ lastRun.error }}`."""
    items: list[dict[str, Any]] = Field(default_factory=list, max_length=256)
    """Input items instead of a text; every text in them may hold the same."""
    body: dict[str, Any] | None = None
    """The JSON body of `protocol: invocations`, at most 256Ki; every text in it may hold the same."""
    timeout_minutes: int = Field(default=30, ge=1, le=1440)
    """Then the run is ended, what it said is kept, and it counts as failed."""
    on_failure: Literal["alert", "retry", "skip"] = "alert"
    """What follows a failure: people are told; or first further turns (`retries`), and people are told when all have failed; or nothing
    but the history's entry."""
    retries: Retries = Field(default_factory=Retries)
    """What `onFailure: retry` does."""
    concurrency_policy: Literal["forbid", "queue", "replace"] = "forbid"
    """What becomes of a due time while the former run goes on: it is passed over; it waits; it takes the former's place, which is
    cancelled."""
    starting_deadline: Duration = "1h"
    """A due time that is older is not run any more. At most 24h."""
    missed_runs: Literal["skip", "latest", "all"] = "latest"
    """Which of the due times are run that passed while nobody could run them: none, the last, all (the last ten)."""
    suspend: bool = False
    """No due time is run from now on; what runs, goes on."""
    session: Literal["persistent", "fresh"] = "persistent"
    """One session for all runs, so that files and memory last between them; or a new one for each."""
    owner: str | None = Field(default=None, max_length=128)
    """The user in whose name it runs, and who sees its sessions. Default: the routine itself, which the tenant's operators see."""
    history_limit: int = Field(default=50, ge=1, le=500)
    """Runs that are remembered."""
    stop_after: int = Field(default=10, ge=1, le=1000)
    """Failed runs in a row after which the routine stops and says so, until its manifest changes or `moorage routines resume`."""
    alerts: list[AlertTarget] = Field(default_factory=list, max_length=8)
    """Who is told."""

    @field_validator("agent")
    @classmethod
    def _is_an_agent(cls, value: str) -> str:
        return _name(value)

    @field_validator("time_zone")
    @classmethod
    def _is_a_zone(cls, value: str) -> str:
        schedules.zone_of(value)
        return value

    @field_validator("schedule")
    @classmethod
    def _is_an_expression(cls, value: str | None) -> str | None:
        if value is not None:
            schedules.cron(value, "UTC")
        return value

    @field_validator("every")
    @classmethod
    def _is_long(cls, value: str | None) -> str | None:
        if value is not None and quantities.seconds(value) < SHORTEST_S:
            raise ValueError(f"{value} is shorter than {SHORTEST_S:.0f}s")
        return value

    @field_validator("starting_deadline")
    @classmethod
    def _is_within_a_day(cls, value: str) -> str:
        if not 1 <= quantities.seconds(value) <= LONGEST_DEADLINE_S:
            raise ValueError(f"{value} is not between 1s and 24h")
        return value

    @field_validator("at")
    @classmethod
    def _is_an_instant(cls, value: str | None) -> str | None:
        if value is not None:
            instant(value)
        return value

    @field_validator("input")
    @classmethod
    def _names_what_there_is(cls, value: str | None) -> str | None:
        if value is not None:
            templates.check(value)
        return value

    @field_validator("items", "body")
    @classmethod
    def _name_what_there_is(cls, value: Any) -> Any:
        if value is not None:
            if len(json.dumps(value)) > MOST_INPUT:
                raise ValueError(f"is larger than {MOST_INPUT // 1024}Ki")
            templates.check_all(value)
        return value

    @model_validator(mode="after")
    def _is_whole(self) -> RoutineSpec:
        given = [name for name in ("schedule", "every", "at") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"spec needs exactly one of schedule, every and at (found: {found})")
        self._is_said_once()
        if len({target.name for target in self.alerts}) != len(self.alerts):
            raise ValueError("spec.alerts: two have the same name")
        schedule_of(self)
        return self

    def _is_said_once(self) -> None:
        if self.protocol == "invocations":
            if self.input is not None or self.items:
                raise ValueError("spec: input and items are for protocol responses; with invocations write body")
            if self.body is None:
                raise ValueError("spec: protocol invocations needs body, the JSON object that is sent")
            return
        if self.body is not None:
            raise ValueError("spec: body is for protocol invocations; write protocol: invocations, or input")
        if (self.input is None) == (not self.items):
            raise ValueError("spec needs exactly one of input and items")


class Routine(Part):
    """An agent that runs by itself. Runs are background turns, whose responses are read like any other's, or invocations.

    The smallest manifest has `metadata.name`, an agent, a schedule and an input (or a body).
    """

    api_version: Literal["moorage.dev/v1alpha1"] = "moorage.dev/v1alpha1"
    """Always `moorage.dev/v1alpha1`."""
    kind: Literal["Routine"] = KIND
    """Always `Routine`."""
    metadata: Metadata
    """Name and labels."""
    spec: RoutineSpec
    """Which agent, when, with what, and what follows."""
    status: dict[str, Any] | None = None
    """Written by the platform, ignored in a manifest."""

    @property
    def name(self) -> str:
        """The routine's name."""
        return self.metadata.name

    def wire_spec(self) -> dict[str, Any]:
        """The spec as JSON data with all defaults filled and camelCase names: what the catalog holds."""
        return self.spec.model_dump(mode="json", by_alias=True)


def schedule_of(spec: RoutineSpec) -> schedules.Schedule:
    """When it is due. Raises ValueError."""
    if spec.every is not None:
        return schedules.Every(int(quantities.seconds(spec.every) * 1000))
    if spec.at is not None:
        return schedules.At(instant(spec.at))
    return schedules.cron(spec.schedule or "", spec.time_zone)


def instant(text: str) -> int:
    """Milliseconds since 1970 of an ISO 8601 instant with an offset. Raises ValueError."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no instant; write it like 2027-01-31T06:00:00+01:00") from None
    if found.tzinfo is None:
        raise ValueError(f"{text[:40]!r} names no offset; write it like 2027-01-31T06:00:00+01:00 or with a Z")
    return int(found.timestamp() * 1000)


def _name(value: str) -> str:
    if names.AGENT.match(value) is None:
        raise ValueError(
            f"{value[:80]!r} is not a name: lower-case letters, digits and -, at most 63, like review-agent"
        )
    return value
