"""Which platform a command talks to: options, then environment, then the file that `moorage dev` and `moorage login` write.

Layer: CLI. The file is `~/.config/moorage/config.json` (or below XDG_CONFIG_HOME), readable by its owner only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moorage._errors import Misuse

DEFAULT_URL = "http://127.0.0.1:8080"


@dataclass(frozen=True)
class Connection:
    """A platform's URL, and the key for it; without a key only a platform of this machine lets one in."""

    url: str
    key: str | None


def config_path(env: Mapping[str, str]) -> Path:
    """Where the file is."""
    base = env.get("XDG_CONFIG_HOME")
    home = Path(base) if base else Path(env.get("HOME") or Path.home()) / ".config"
    return home / "moorage" / "config.json"


def find(url: str | None, key: str | None, env: Mapping[str, str]) -> Connection:
    """The connection to use; each of url and key from the first place that has it. Raises Misuse for a broken file.

    A key of the file goes only to the file's own URL: another platform must not be handed it.
    """
    kept = load(config_path(env))
    where = url or env.get("MOORAGE_URL") or (kept.url if kept else DEFAULT_URL)
    where = where.rstrip("/").removesuffix("/v1")
    fallback = kept.key if kept and kept.url.rstrip("/") == where else None
    return Connection(where, key or env.get("MOORAGE_API_KEY") or fallback)


def is_named(url: str | None, env: Mapping[str, str]) -> bool:
    """Whether any place says which platform; else `find` means the one of this machine. Raises Misuse for a broken file."""
    return bool(url or env.get("MOORAGE_URL") or load(config_path(env)))


def load(path: Path) -> Connection | None:
    """What the file holds; None when there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Connection(str(found["url"]), found.get("api_key"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as wrong:
        raise Misuse(
            f"{path} cannot be read: {wrong!r}.", hint="Delete it, and run `moorage login` or `moorage dev`."
        ) from wrong


def save(path: Path, url: str, key: str | None) -> None:
    """Writes the file, for its owner's eyes only, at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump({"url": url, "api_key": key}, file)
    fresh.replace(path)
