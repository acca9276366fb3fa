"""A Routine as a person writes it, and what is said of one that is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from moorage_api import templates
from moorage_api.kinds import ManifestError, Routine, parse_any

pytestmark = [pytest.mark.unit, pytest.mark.routines]


def document(**spec: Any) -> dict[str, Any]:
    whole = {"agent": "triage", "schedule": "0 6 * * 1-5", "input": "go", **spec}
    return {
        "apiVersion": "moorage.dev/v1alpha1",
        "kind": "Routine",
        "metadata": {"name": "triage"},
        "spec": {name: value for name, value in whole.items() if value is not None},
    }


def test_the_smallest_one_has_all_its_defaults() -> None:
    found = parse_any(document())
    assert isinstance(found, Routine)
    spec = found.wire_spec()
    assert (spec["onFailure"], spec["concurrencyPolicy"], spec["missedRuns"]) == ("alert", "forbid", "latest")
    assert (spec["timeoutMinutes"], spec["timeZone"], spec["session"], spec["suspend"]) == (
        30,
        "UTC",
        "persistent",
        False,
    )


@pytest.mark.parametrize(
    ("spec", "field", "said"),
    [
        ({"schedule": "61 * * * *"}, "spec.schedule", "minute"),
        ({"schedule": "0 0 30 2 *"}, "spec.schedule", "day"),
        ({"schedule": "* * * *"}, "spec.schedule", "4 fields"),
        ({"timeZone": "Europe/Nowhere"}, "spec.timeZone", "not a time zone"),
        ({"schedule": None}, "spec", "exactly one of schedule, every and at"),
        ({"every": "1h"}, "spec", "schedule and every"),
        ({"schedule": None, "every": "5s"}, "spec.every", "shorter than 10s"),
        ({"schedule": None, "at": "tomorrow"}, "spec.at", "no instant"),
        ({"schedule": None, "at": "2027-01-31T06:00:00"}, "spec.at", "no offset"),
        ({"input": None}, "spec", "exactly one of input and items"),
        ({"items": [{"type": "message"}]}, "spec", "exactly one of input and items"),
        ({"body": {"x": 1}}, "spec", "body is for protocol invocations"),
        ({"protocol": "invocations"}, "spec", "input and items are for protocol responses"),
        ({"protocol": "invocations", "input": None}, "spec", "needs body"),
        ({"protocol": "invocations", "input": None, "body": "x"}, "spec.body", "dictionary"),
        ({"protocol": "invocations", "input": None, "body": {"a": ["{{ nobody }}"]}}, "spec.body", "names nothing"),
        ({"protocol": "invocations", "input": None, "body": {"a": "x" * 300_000}}, "spec.body", "larger than 256Ki"),
        ({"protocol": "mcp"}, "spec.protocol", "'responses'"),
        ({"input": "since {{ lastRun.when }}"}, "spec.input", "names nothing"),
        ({"input": "since {{ scheduledtime }}"}, "spec.input", "did you mean scheduledTime"),
        ({"input": "x" * 300_000}, "spec.input", "262144"),
        ({"agent": "Not An Agent"}, "spec.agent", "not a name"),
        ({"onFailure": "shout"}, "spec.onFailure", "'alert'"),
        ({"timeoutMinutes": 0}, "spec.timeoutMinutes", "greater"),
        ({"startingDeadline": "48h"}, "spec.startingDeadline", "24h"),
        (
            {"alerts": [{"name": "ops", "url": {"secret": "https://hooks.example.com/x"}}]},
            "spec.alerts[0].url.secret",
            "not the name",
        ),
        ({"alerts": [{"name": "a", "url": {"secret": "s"}}] * 2}, "spec", "same name"),
        ({"schdule": "x"}, "spec.schdule", "did you mean schedule"),
    ],
)
def test_what_is_wrong_is_said_with_its_field(spec: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(ManifestError) as found:
        parse_any(document(**spec))
    assert found.value.field == field and said in str(found.value), found.value


def test_one_by_invocations_has_a_body_of_any_shape() -> None:
    found = parse_any(
        document(protocol="invocations", input=None, body={"Deep": [{"x": "{{ scheduledTime }}"}], "n": None})
    )
    assert isinstance(found, Routine)
    assert found.wire_spec()["body"] == {"Deep": [{"x": "{{ scheduledTime }}"}], "n": None}
    assert parse_any(document(protocol="invocations", input=None, body={}))


def test_templates_fill_names_and_read_nothing_that_they_put_in() -> None:
    known = {"lastRun.output": "{{ scheduledTime }}", "scheduledTime": "now"}
    filled = templates.filled([{"text": "{{scheduledTime}}: {{ lastRun.output }}{{ lastRun.error }}", "n": 3}], known)
    assert filled == [{"text": "now: {{ scheduledTime }}", "n": 3}]


def test_data_nested_without_end_is_refused() -> None:
    deep: Any = "x"
    for _ in range(40):
        deep = [deep]
    with pytest.raises(ValueError, match="nested"):
        templates.check_all(deep)
