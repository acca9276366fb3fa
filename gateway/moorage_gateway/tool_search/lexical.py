"""BM25 over two fields of each tool, name and description (Robertson and Zaragoza 2009), with what is to be done and whose tool it is; over
its example questions beside them, where it has any. Layer: pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from moorage_gateway.tool_search.asking import Question
from moorage_gateway.tool_search.doings import DOINGS
from moorage_gateway.tool_search.examples import Examples
from moorage_gateway.tool_search.texts import Groups, Text, numbers_of, rarities
from moorage_gateway.tool_search.things import THINGS
from moorage_gateway.tool_search.words import stem

K1 = 0.8
"""How soon a repeated word counts less."""
NAME, NAME_LENGTH = 2.0, 0.6
"""What a word of the name counts, and how much a long name counts less."""
SAID, SAID_LENGTH = 0.5, 0.4
"""The same, of the description."""
VERB = 0.5
"""What a verb counts as a word: as a doing it counts by itself."""
DOING = 3.5
"""Added where the tool does what is to be done."""
SERVER = 3.0
"""Added where the question names the tool's server."""
TITLE = 1.0
"""Added for a word that only one server has in what it calls itself; less for one that several have."""
OTHER_NAME = 0.7
"""What another name of a thing counts."""
UNASKED = 0.15
"""Taken off for each word of the tool's name that the question does not have, by its rarity."""
EXAMPLE = 0.8
"""What BM25 of the nearest example counts."""
EXAMPLE_DOING = 1.5
"""Added where an example wants done what is to be done."""
NO_EXAMPLE = 0.6
"""Of a tool's own score, what is taken for that of its example where it has none and others do."""
_NOT_SO_RARE = 0.8
"""Of a name's word that the question has under another name: what it is not unasked."""


class Lexical:
    """An index of tools' words."""

    def __init__(self, texts: Sequence[Text], groups: Groups, examples: Examples) -> None:
        self._groups, self._examples = groups, examples
        fields = [([stem(w) for w in text.name], [stem(w) for w in text.said]) for text in texts]
        rare = rarities([(*name, *said) for name, said in fields])
        lengths = [max(1.0, sum(len(each[number]) for each in fields) / max(1, len(fields))) for number in (0, 1)]
        whole: dict[str, dict[int, float]] = defaultdict(dict)
        names: dict[str, dict[int, float]] = defaultdict(dict)
        for number, (name, said) in enumerate(fields):
            for word, value in _weighed(name, said, lengths).items():
                whole[word][number] = value
            for word in set(name) - DOINGS.keys():
                names[word][number] = rare[word]
        self._whole = {
            word: _posting(found, (VERB if word in DOINGS else 1.0) * rare[word]) for word, found in whole.items()
        }
        self._names = {word: (np.array(list(found)), np.array(list(found.values()))) for word, found in names.items()}
        self._unasked = np.zeros(len(texts))
        for numbers, values in self._names.values():
            self._unasked[numbers] += values
        self._asked = _asked(examples, fields) if examples.every else {}
        self._wanted = numbers_of([each.doings for each in examples.every])

    def scores(self, question: Question) -> np.ndarray:
        """Of each tool; minus infinity where it shares nothing with the question."""
        scores, told, unasked = np.zeros(len(self._unasked)), np.zeros(len(self._unasked)), self._unasked.copy()
        weights = self._weights(question)
        for word, weight in weights.items():
            if word in self._whole and word not in self._groups.of_many:
                numbers, values = self._whole[word]
                scores[numbers] += weight * values
            if word in self._names:
                numbers, values = self._names[word]
                unasked[numbers] -= values * (1.0 if weight == 1.0 else _NOT_SO_RARE)
        for word in question.stems:
            if word in self._groups.servers:
                scores[self._groups.servers[word]] += SERVER
            if word in self._groups.titles:
                numbers, tells = self._groups.titles[word]
                told[numbers] += TITLE * tells
        does = np.zeros(len(scores))
        for doing in question.doings & self._groups.doings.keys():
            does[self._groups.doings[doing]] = DOING
        if self._examples.share:
            near = self._examples.best(self._near(weights), NO_EXAMPLE * scores)
            wanted = self._examples.best(self._wants(question), does / DOING)
            scores += self._examples.share * EXAMPLE * near
            does += self._examples.share * EXAMPLE_DOING * wanted
        found: np.ndarray = np.where(scores > 0, scores + told + does - UNASKED * unasked, -np.inf)
        return found

    def _near(self, weights: Mapping[str, float]) -> np.ndarray:
        """BM25 of each example."""
        scores: np.ndarray = np.zeros(len(self._examples.every))
        for word, weight in weights.items():
            if word in self._asked and word not in self._groups.of_many:
                numbers, values = self._asked[word]
                scores[numbers] += weight * values
        return scores

    def _wants(self, question: Question) -> np.ndarray:
        """1 for each example that wants done what the question does."""
        found: np.ndarray = np.zeros(len(self._examples.every))
        for doing in question.doings & self._wanted.keys():
            found[self._wanted[doing]] = 1.0
        return found

    def _weights(self, question: Question) -> dict[str, float]:
        weights = dict.fromkeys(question.stems, 1.0)
        for word in question.stems:
            for other in THINGS.get(word, ()):
                weights.setdefault(other, OTHER_NAME)
        return weights


def _weighed(name: list[str], said: list[str], lengths: Sequence[float]) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for word in set(name):  # a name repeats words for grammar's sake
        found[word] += NAME / (1 - NAME_LENGTH + NAME_LENGTH * len(name) / lengths[0])
    for word, count in Counter(said).items():
        found[word] += SAID * count / (1 - SAID_LENGTH + SAID_LENGTH * len(said) / lengths[1])
    return found


def _asked(
    examples: Examples, fields: Sequence[tuple[list[str], list[str]]]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What each word counts in each example that has it; rare is what few tools have, in their own texts or in examples."""
    every = [[*name, *said] for name, said in fields]
    for each in examples.every:
        every[each.of] += each.stems
    rare = rarities(every)
    length = sum(max(1, len(each.stems)) for each in examples.every) / len(examples.every)
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for number, each in enumerate(examples.every):
        for word, count in Counter(each.stems).items():
            found[word][number] = count / (1 - SAID_LENGTH + SAID_LENGTH * len(each.stems) / length)
    return {word: _posting(of, (VERB if word in DOINGS else 1.0) * rare[word]) for word, of in found.items()}


def _posting(found: dict[int, float], rare: float) -> tuple[np.ndarray, np.ndarray]:
    values = np.array(list(found.values()))
    return np.array(list(found)), rare * values * (K1 + 1) / (values + K1)
