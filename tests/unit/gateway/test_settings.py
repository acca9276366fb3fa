"""Settings: a bad one stops the process and is named, never shown; every field says why it is as it is."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from moorage_gateway.settings import Settings, SettingsError, load

pytestmark = pytest.mark.unit

GOOD = {"MOORAGE_REDIS_URL": "redis://127.0.0.1:6379/0", "MOORAGE_STORE": "/srv/store"}
S3 = {
    **GOOD,
    "MOORAGE_STORE": "s3://bucket/prefix",
    "MOORAGE_S3_ENDPOINT": "http://127.0.0.1:9000/",
    "MOORAGE_S3_ACCESS_KEY": "a",
    "MOORAGE_S3_SECRET_KEY": "b",
}


def test_the_two_needed_settings_are_enough() -> None:
    settings = load(GOOD)
    assert settings.redis_url.get_secret_value() == "redis://127.0.0.1:6379/0"
    assert settings.public_port == 8080
    assert not settings.anonymous


@pytest.mark.parametrize("missing", ["MOORAGE_REDIS_URL", "MOORAGE_STORE"])
def test_a_bare_start_fails_and_names_what_is_missing(missing: str) -> None:
    with pytest.raises(SettingsError, match=f"{missing}: is missing"):
        load({name: value for name, value in GOOD.items() if name != missing})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MOORAGE_PUBLIC_PORT", "99999"),
        ("MOORAGE_PUBLIC_PORT", "http"),
        ("MOORAGE_REDIS_URL", "mysql://s3cret"),
        ("MOORAGE_DURABILITY", "sometimes"),
        ("MOORAGE_SCRATCH", "much"),
        ("MOORAGE_HEADER_SECONDS", "0"),
        ("MOORAGE_HEADER_SECONDS", "inf"),
        ("MOORAGE_HEADER_BYTES", "-1"),
        ("MOORAGE_GATEWAY_ID", "Not A Name"),
        ("MOORAGE_OTLP_ENDPOINT", "collector:4318"),
        ("MOORAGE_DEV", "perhaps"),
        ("MOORAGE_ACCESS_LOG", "syslog"),
        ("MOORAGE_JSON_DEPTH", "100000"),
    ],
)
def test_a_bad_setting_is_named_and_its_value_is_not_shown(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({**GOOD, name: value})
    assert name in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"MOORAGE_ANONYMOUS": "true"}, "MOORAGE_DEV"),
        ({"MOORAGE_ANONYMOUS": "1", "MOORAGE_DEV": "1", "MOORAGE_PUBLIC_HOST": "0.0.0.0"}, "MOORAGE_PUBLIC_HOST"),
        ({"MOORAGE_STORE": "s3://bucket"}, "MOORAGE_S3_SECRET_KEY"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(changes: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        load({**GOOD, **changes})


def test_secrets_do_not_show_in_the_representation() -> None:
    settings = load({**S3, "MOORAGE_S3_SECRET_KEY": "canary-1", "MOORAGE_REDIS_URL": "redis://:canary-2@h/0"})
    assert "canary" not in repr(settings)
    assert settings.s3_endpoint == "http://127.0.0.1:9000"


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({}, {"localhost", "127.0.0.1", "[::1]", "::1"}),
        ({"MOORAGE_PUBLIC_HOST": "0.0.0.0"}, None),
        ({"MOORAGE_HOSTS": "A.example, b.example"}, {"a.example", "b.example"}),
        ({"MOORAGE_HOSTS": "*"}, None),
    ],
)
def test_the_hosts_callers_may_use_follow_the_address(changes: dict[str, str], allowed: set[str] | None) -> None:
    assert load({**GOOD, **changes}).allowed_hosts == allowed


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        load(GOOD).dev = True  # type: ignore[misc]


def test_every_setting_has_a_reason() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
