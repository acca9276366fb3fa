"""What was found, kept a (toolbox version, session): the same question in a turn is no second search. Layer: pure, bounded."""

from __future__ import annotations

from collections import OrderedDict

from moorage_gateway.tool_search.index import Index

SESSIONS = 4096
QUESTIONS = 16
"""A session; the oldest go first."""


class Answers:
    """Answers of indexes, by toolbox version and session."""

    def __init__(self, sessions: int = SESSIONS, questions: int = QUESTIONS) -> None:
        self._sessions, self._questions = sessions, questions
        self._kept: OrderedDict[tuple[str, str], OrderedDict[tuple[str, int], tuple[str, ...]]] = OrderedDict()

    def of(self, index: Index, version: str, session: str, query: str, most: int) -> tuple[str, ...]:
        """Names of what `index`, which is that of `version`, finds for the session."""
        asked = self._kept.setdefault((version, session), OrderedDict())
        self._kept.move_to_end((version, session))
        while len(self._kept) > self._sessions:
            self._kept.popitem(last=False)
        found = asked.get((query, most))
        if found is None:
            found = asked[(query, most)] = tuple(tool.name for tool in index.search(query, most))
            while len(asked) > self._questions:
                asked.popitem(last=False)
        return found
