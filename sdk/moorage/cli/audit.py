"""`moorage audit`: who did what. Layer: CLI."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from moorage.cli import options, printing

_SPAN = re.compile(r"(\d+)([smhdw])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def audit(
    since: Annotated[
        str, typer.Option("--since", help="How far back: 30m, 2h, 7d, or a date like 2026-11-25.")
    ] = "24h",
    verify: Annotated[bool, typer.Option("--verify", help="Prove the chains; exit 1 when one does not hold.")] = False,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Print the audit log: time, caller, action, object, outcome. Needs the operator scope, --verify admin."""
    start = moment(since, time.time())
    with options.client(url, key) as client:
        found = client.audit(since=start)
        proof = client.verify_audit() if verify else None
    if as_json:
        printing.document(found if proof is None else {**found, "verification": proof})
    else:
        _show(found, (proof or {}).get("data") or [])
    if proof is not None and not proof.get("ok"):
        raise typer.Exit(1)


def _show(found: dict[str, Any], proofs: list[dict[str, Any]]) -> None:
    columns = {"at": "TIME (UTC)", "user": "CALLER", "action": "ACTION", "object": "OBJECT", "outcome": "OUTCOME"}
    rows = [{**record, "at": _at(record.get("time"))} for record in found.get("data") or []]
    printing.table(rows, columns, empty="No audit records in this time.")
    for proof in proofs:
        writer = printing.cell(proof.get("writer"))
        if proof.get("ok"):
            printing.out(f"chain {writer}: {proof.get('records')} records, intact")
        else:
            printing.out(
                f"chain {writer}: BROKEN at record {proof.get('sequence')}: {printing.cell(proof.get('problem'))}"
            )
    if found.get("has_more"):
        printing.note("There are more: ask for a shorter time with --since.")


def _at(value: object) -> str:
    if isinstance(value, int | float):
        return printing.when(value / 1000 if value > 1e11 else value)
    return printing.cell(value)


def moment(text: str, now: float) -> float:
    """Epoch seconds of a span before `now` (`90m`) or of a date. Raises BadParameter."""
    span = _SPAN.match(text)
    if span is not None:
        return now - int(span.group(1)) * _SECONDS[span.group(2)]
    try:
        found = datetime.fromisoformat(text)
    except ValueError as wrong:
        raise typer.BadParameter(
            f"{text!r} is no time: write 30m, 2h, 7d or 2026-11-25", param_hint="--since"
        ) from wrong
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
