"""Pieces of the command line: which platform it talks to, how it reads times, what it lets through to a terminal."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from moorage._errors import Misuse
from moorage.cli import audit, connection, main, printing, reference, up
from moorage.cli.connection import Connection

pytestmark = pytest.mark.unit


def kept(tmp_path: Path, url: str = "http://kept", key: str | None = "kept-key") -> dict[str, str]:
    env = {"XDG_CONFIG_HOME": str(tmp_path)}
    connection.save(connection.config_path(env), url, key)
    return env


@pytest.mark.parametrize(
    ("url", "key", "more", "expected"),
    [
        (None, None, {}, Connection("http://kept", "kept-key")),
        (None, "option", {}, Connection("http://kept", "option")),
        (None, None, {"MOORAGE_API_KEY": "env"}, Connection("http://kept", "env")),
        (None, None, {"MOORAGE_URL": "http://env/"}, Connection("http://env", None)),
        ("http://option", None, {"MOORAGE_URL": "http://env"}, Connection("http://option", None)),
        ("http://kept/v1", None, {}, Connection("http://kept", "kept-key")),
    ],
)
def test_options_come_before_environment_before_the_file_and_a_kept_key_goes_only_to_its_own_url(
    tmp_path: Path, url: str | None, key: str | None, more: dict[str, str], expected: Connection
) -> None:
    assert connection.find(url, key, kept(tmp_path) | more) == expected


def test_without_anything_it_is_the_platform_of_this_machine(tmp_path: Path) -> None:
    assert connection.find(None, None, {"HOME": str(tmp_path)}) == Connection(connection.DEFAULT_URL, None)
    assert connection.config_path({"HOME": str(tmp_path)}) == tmp_path / ".config" / "moorage" / "config.json"


def test_the_file_is_for_its_owner_only_and_a_broken_one_is_named(tmp_path: Path) -> None:
    path = connection.config_path(kept(tmp_path))
    assert path.stat().st_mode & 0o777 == 0o600 and json.loads(path.read_text()) == {
        "url": "http://kept",
        "api_key": "kept-key",
    }
    path.write_text("{")
    with pytest.raises(Misuse, match="config.json"):
        connection.load(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30s", 99_970.0),
        ("2m", 99_880.0),
        ("1h", 96_400.0),
        ("1d", 13_600.0),
        ("1970-01-02", 86_400.0),
        ("1970-01-01T01:00:00+01:00", 0.0),
    ],
)
def test_times_are_spans_or_dates(text: str, expected: float) -> None:
    assert audit.moment(text, 100_000.0) == expected


@pytest.mark.parametrize("text", ["", "soon", "1y", "-1h"])
def test_another_time_is_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        audit.moment(text, 0.0)


def test_an_agent_cannot_steer_the_terminal() -> None:
    assert printing.clean("a\x1b[2Jb\x9b1mc\rd\te\nf") == "a[2Jb1mcd\te\nf"


def test_a_key_is_printed_only_for_a_platform_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("MOORAGE_API_KEY", "secret")
    assert up._key_text("http://127.0.0.1:1/x", None, None) == '"secret"'
    assert "secret" not in up._key_text("https://platform.example/x", None, None)


class Entry:
    """An entry point as another distribution would bring it."""

    name = "dev"

    def __init__(self, loaded: Any) -> None:
        self._loaded = loaded

    def load(self) -> Any:
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded


def plain(times: int = 1) -> None:
    """Run it."""
    typer.echo(f"ran {times}")


def as_app() -> typer.Typer:
    app = typer.Typer()
    app.command()(plain)
    return app


@pytest.mark.parametrize("loaded", [plain, as_app()])
def test_a_command_of_another_distribution_runs(loaded: Any) -> None:
    app = main.make_app(lambda: [Entry(loaded)])  # type: ignore[list-item]
    found = CliRunner().invoke(app, ["dev", "--times", "2"])
    assert (found.exit_code, found.output) == (0, "ran 2\n")
    assert "dev" in CliRunner().invoke(app, ["--help"]).output


def test_a_command_whose_extra_is_not_installed_is_not_offered() -> None:
    app = main.make_app(lambda: [Entry(ModuleNotFoundError("x"))])  # type: ignore[list-item]
    assert CliRunner().invoke(app, ["dev"]).exit_code == 2
    assert CliRunner().invoke(app, ["--help"]).exit_code == 0


def test_the_version_is_printed() -> None:
    assert CliRunner().invoke(main.make_app(), ["--version"]).output.strip() == metadata.version("moorage")


def test_the_reference_page_has_every_command_and_is_the_same_each_time() -> None:
    page = reference.render(lambda: [])
    assert page == reference.render(lambda: [])
    for command in (
        "up",
        "chat",
        "logs",
        "audit",
        "login",
        "agents delete",
        "sessions stop",
        "responses feedback",
        "keys create",
        "toolboxes call",
    ):
        assert f"\n## moorage {command}\n" in page
    assert "moorage chat AGENT [MESSAGE] [OPTIONS]" in page and "`--follow`" in page
