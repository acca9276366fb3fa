"""The triage agent on Moorage: every run reads what is new since the one before, and says it once. The work is in `triage` beside it."""

import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from triage import posting, reading, repositories, seen

from moorage import Context, HostedAgent, OutcomeUnknown, step

T = TypeVar("T")


def triage(items: list[dict[str, Any]], ctx: Context) -> Iterator[str]:
    """Each piece of work is a step: a run whose sandbox dies goes on behind the last that ended."""
    known = work("known", seen.read, ctx.workspace)
    place = work("fetch", repositories.fetch, ctx.workspace, os.environ.get("TRIAGE_REPOSITORY", ""))
    news = work("list", repositories.news, place, known)
    yield f"{len(news['issues'])} issues and {len(news['commits'])} commits are new.\n"
    notes = []
    for path in news["issues"]:
        note = work("read", reading.read, place, path, pace=float(os.environ.get("TRIAGE_PACE", "0")))
        notes.append(note)
        yield f"- {note['urgency']}: {note['title']}\n"
    summary = reading.summary(notes, news["commits"])
    yield f"\n{summary}\n"
    if where := os.environ.get("TRIAGE_WEBHOOK"):
        # A step's result lasts over the tries of a run, each of which is a response of its own.
        yield told(where, summary, key=work("key", _key))
    work("remember", seen.write, ctx.workspace, news)


def work(name: str, fn: Callable[..., T], *args: Any, **more: Any) -> T:
    """A step that may be done twice: it reads, or writes the same. Where it is not known whether it ended, it is done again."""
    while True:
        try:
            return step(name, fn, *args, **more)
        except OutcomeUnknown:
            continue


def _key() -> str:
    return uuid.uuid4().hex


def told(where: str, summary: str, key: str) -> str:
    """Posts it; where nobody knows whether it arrived, once more under the same key, by which the other side can tell."""
    try:
        return f"\nPosted: {step('post', posting.post, where, summary, key)}.\n"
    except OutcomeUnknown:
        return f"\nPosted again: {step('post', posting.post, where, summary, key)}.\n"


if __name__ == "__main__":
    HostedAgent(agent=triage, protocol="responses").serve()
