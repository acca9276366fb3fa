"""What the table of vectors says: how near the nearest word of a tool is to each word of the question. Layer: pure.

How near the means of all words are counts beside it: the table is made for that, but it blurs the one word that tells two tools apart.
How near the mean of a tool's nearest example is counts more, where there are any: a question is more like a question than like a name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from moorage_gateway.tool_search.asking import Question
from moorage_gateway.tool_search.doings import DOINGS
from moorage_gateway.tool_search.examples import Examples
from moorage_gateway.tool_search.table import Table
from moorage_gateway.tool_search.texts import Groups, Text, rarities
from moorage_gateway.tool_search.things import THINGS
from moorage_gateway.tool_search.words import stem

FAR = 0.07
"""Nearness (cosine) that is none."""
SAID = 0.8
"""What a word counts that only the description has."""
VERB = 0.8
"""What a verb of the question counts: as a doing it counts by itself."""
BACK = 0.25
"""What it counts how near the question is to each word of the tool's name."""
DOING = 0.2
"""Added where the tool does what is to be done."""
WHOLE = 1.5
"""What it counts how near the means of all words of both are."""
SERVER = 0.3
"""Added where the question names the tool's server."""
TITLE = 0.2
"""Added for a word that only one server has in what it calls itself; less for one that several have."""
ABOUT = 0.3
"""What it counts how near the first thing that the question names is to what the tool's name is about."""
EXAMPLE = 3.0
"""What it counts how near the nearest example is."""
NO_EXAMPLE = 0.3
"""Of a tool's own score, what is taken for that nearness where it has no example and others do."""
OTHER_NAME = 0.6
"""How near another name of a thing is, where the table has it farther."""
SAME = (1.0, 0.85)
"""How near the same word, and another name of a thing, are to what a tool is about."""
UNKNOWN = 5.0
"""Rarity of a word that no tool has."""


class Meaning:
    """An index of tools' vectors."""

    def __init__(self, texts: Sequence[Text], groups: Groups, examples: Examples, table: Table) -> None:
        self._groups, self._examples, self._table = groups, examples, table
        stems = [[stem(word) for word in (*text.name, *text.said)] for text in texts]
        self._rare = rarities(stems)
        vocabulary: dict[str, int] = {}
        weights = [dict.fromkeys(text.said, SAID) | dict.fromkeys(text.name, 1.0) or {"": 0.0} for text in texts]
        self._flat, self._starts = _places(weights, vocabulary)
        self._counts = np.array([weight for each in weights for weight in each.values()], np.float32)[:, None]
        self._things, self._first = _places([text.about or ("",) for text in texts], vocabulary)
        self._wholes = _embedded(
            [f"{text.heading}: {text.begin}" for text in texts], table
        )  # as the table was made for
        self._asked = _embedded([each.text for each in examples.every], table)
        self._named = (self._counts[:, 0] == 1.0).astype(np.float32)
        self._names = np.maximum(np.add.reduceat(self._named, self._starts), 1) if texts else np.zeros(0)
        self._vectors = (
            np.stack([table.embed(word) for word in vocabulary]) if vocabulary else np.zeros((0, table.dimensions))
        )
        self._called: dict[str, list[int]] = {}
        for word, number in vocabulary.items():
            self._called.setdefault(stem(word), []).append(number)

    def scores(self, question: Question) -> np.ndarray:
        """Of each tool, from 0."""
        whole = self._table.embed(question.text)
        scores = self._own(question, whole)
        if self._examples.share:
            near = np.maximum(np.einsum("ed,d->e", self._asked, whole), 0)
            scores += self._examples.share * EXAMPLE * self._examples.best(near, NO_EXAMPLE * scores)
        return scores

    def _own(self, question: Question, whole: np.ndarray) -> np.ndarray:
        """By the tools' own texts; `whole`: the mean of the question's words."""
        servers = [word for word in question.stems if word in self._groups.servers]
        known = self._groups.of_many.union(servers)
        words = [word for word in question.words if stem(word) not in known]
        words = words or [word for word in question.words if stem(word) not in servers] or list(question.words)
        scores: np.ndarray = np.zeros(len(self._starts))
        if words and len(self._starts):
            thing = question.about(known) or words
            every = list(dict.fromkeys((*words, *thing)))
            raw = self._near(every)
            near = self._raised(raw[:, : len(words)].copy(), words, (0.0, OTHER_NAME))
            nearest = np.maximum.reduceat(near[self._flat] * self._counts, self._starts, axis=0)
            weights = np.array([self._weight(stem(word)) for word in words])
            back = np.add.reduceat(near.max(1)[self._flat] * self._named, self._starts) / self._names
            scores = nearest @ weights / max(float(weights.sum()), 1e-6) + BACK * back
            scores += WHOLE * np.einsum("td,d->t", self._wholes, whole)
            scores = np.maximum(scores, 0)
        if not scores.any():
            return scores
        scores += self._beside(question, servers)
        scores += ABOUT * self._about(self._raised(raw[:, [every.index(word) for word in thing]], thing, SAME), thing)
        return scores

    def _beside(self, question: Question, servers: Sequence[str]) -> np.ndarray:
        """What counts beside words that are near: whose a tool is, and what it does."""
        found: np.ndarray = np.zeros(len(self._starts))
        for word in servers:
            found[self._groups.servers[word]] += SERVER
        for word in question.stems:
            if word in self._groups.titles:
                numbers, tells = self._groups.titles[word]
                found[numbers] += TITLE * tells
        does = np.zeros(len(found))
        for doing in question.doings & self._groups.doings.keys():
            does[self._groups.doings[doing]] = DOING
        found += does
        return found

    def _about(self, near: np.ndarray, thing: Sequence[str]) -> np.ndarray:
        """How near what a tool is about is to the thing that the question names; `near`: the vocabulary to its words."""
        weights = np.array([self._rare.get(stem(word), UNKNOWN) for word in thing])
        nearest = np.maximum.reduceat(near[self._things], self._first, axis=0)
        found: np.ndarray = nearest @ weights / float(weights.sum())
        return found

    def _near(self, words: Sequence[str]) -> np.ndarray:
        """How near each word of the vocabulary is to each of these, 0 to 1."""
        asked = np.stack([self._table.embed(word) for word in words])
        # Not `@`: its library starts threads for a matrix of this size, which wait for a core longer than one needs for all of it.
        near: np.ndarray = np.einsum("vd,qd->vq", self._vectors, asked)
        return np.maximum(near - np.float32(FAR), 0) / np.float32(1 - FAR)

    def _raised(self, near: np.ndarray, words: Sequence[str], least: tuple[float, float]) -> np.ndarray:
        """The same, but no word is farther than this from itself, and from other names of its thing."""
        for number, word in enumerate(map(stem, words)):
            for name, value in ((word, least[0]), *((other, least[1]) for other in THINGS.get(word, ()))):
                places = self._called.get(name)
                if places and value:
                    near[places, number] = np.maximum(near[places, number], value)
        return near

    def _weight(self, word: str) -> float:
        return (VERB if word in DOINGS else 1.0) * self._rare.get(word, UNKNOWN)


def _places(texts: Sequence[Iterable[str]], vocabulary: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """The number of each word of each text, which has one, and where each text begins; new words are added to the vocabulary."""
    flat: list[int] = []
    starts = np.zeros(len(texts), np.int64)
    for number, words in enumerate(texts):
        starts[number] = len(flat)
        flat += [vocabulary.setdefault(word, len(vocabulary)) for word in words]
    return np.array(flat, np.int64), starts


def _embedded(texts: Sequence[str], table: Table) -> np.ndarray:
    found = np.zeros((len(texts), table.dimensions), np.float32)
    for number, text in enumerate(texts):
        found[number] = table.embed(text)
    return found
