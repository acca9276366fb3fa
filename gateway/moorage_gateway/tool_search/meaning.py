"""What the table of vectors says: how near the nearest word of a tool is to each word of the question. Layer: pure.

How near the means of all words are counts beside it: the table is made for that, but it blurs the one word that tells two tools apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moorage_gateway.tool_search.table import Table
from moorage_gateway.tool_search.texts import Groups, Text, rarities
from moorage_gateway.tool_search.words import DOINGS, Question, stem

FAR = 0.07
"""Nearness (cosine) that is none."""
SAID = 0.8
"""What a word counts that only the description has."""
VERB = 0.8
"""What a verb of the question counts: as a doing it counts by itself."""
BACK = 0.25
"""What it counts how near the question is to each word of the tool's name."""
DOING = 0.1
"""Added where the tool does what is to be done."""
WHOLE = 1.5
"""What it counts how near the means of all words of both are."""
SERVER = 0.5
"""Added where the question names the tool's server."""
UNKNOWN = 5.0
"""Rarity of a word that no tool has."""


class Meaning:
    """An index of tools' vectors."""

    def __init__(self, texts: Sequence[Text], groups: Groups, table: Table) -> None:
        self._groups, self._table = groups, table
        stems = [[stem(word) for word in (*text.name, *text.said)] for text in texts]
        self._rare = rarities(stems)
        vocabulary: dict[str, int] = {}
        flat: list[int] = []
        counts: list[float] = []
        self._starts = np.zeros(len(texts), np.int64)
        for number, text in enumerate(texts):
            self._starts[number] = len(flat)
            weights = dict.fromkeys(text.said, SAID) | dict.fromkeys(text.name, 1.0)
            for word, weight in (weights or {"": 0.0}).items():  # each tool has a place
                flat.append(vocabulary.setdefault(word, len(vocabulary)))
                counts.append(weight)
        self._flat, self._counts = np.array(flat, np.int64), np.array(counts, np.float32)[:, None]
        self._wholes = _wholes(texts, table)
        self._named = (self._counts[:, 0] == 1.0).astype(np.float32)
        self._names = np.maximum(np.add.reduceat(self._named, self._starts), 1) if texts else np.zeros(0)
        self._vectors = (
            np.stack([table.embed(word) for word in vocabulary]) if vocabulary else np.zeros((0, table.dimensions))
        )

    def scores(self, question: Question) -> np.ndarray:
        """Of each tool, from 0."""
        servers = [word for word in question.stems if word in self._groups.servers]
        words = [word for word in question.words if stem(word) not in servers] or list(question.words)
        scores: np.ndarray = np.zeros(len(self._starts))
        if words and len(self._starts):
            asked = np.stack([self._table.embed(word) for word in words])
            # Not `@`: its library starts threads for a matrix of this size, which wait for a core longer than one needs for all of it.
            near = np.einsum("vd,qd->vq", self._vectors, asked)
            near = np.maximum(near - np.float32(FAR), 0) / np.float32(1 - FAR)
            nearest = np.maximum.reduceat(near[self._flat] * self._counts, self._starts, axis=0)
            weights = np.array([self._weight(stem(word)) for word in words])
            back = np.add.reduceat(near.max(1)[self._flat] * self._named, self._starts) / self._names
            scores = nearest @ weights / max(float(weights.sum()), 1e-6) + BACK * back
            scores += WHOLE * np.einsum("td,d->t", self._wholes, self._table.embed(question.text))
            scores = np.maximum(scores, 0)
        if not scores.any():
            return scores
        for word in servers:
            scores[self._groups.servers[word]] += SERVER
        does = np.zeros(len(scores))
        for doing in question.doings & self._groups.doings.keys():
            does[self._groups.doings[doing]] = DOING
        return scores + does

    def _weight(self, word: str) -> float:
        return (VERB if word in DOINGS else 1.0) * self._rare.get(word, UNKNOWN)


def _wholes(texts: Sequence[Text], table: Table) -> np.ndarray:
    found = np.zeros((len(texts), table.dimensions), np.float32)
    for number, text in enumerate(texts):
        found[number] = table.embed(f"{text.heading}: {text.begin}")  # as the table was made for
    return found
