"""The static token table: a vector a token, distilled from MiniLM by `scripts/distil.py`; a text is the mean of its tokens.

Licences of the model, the vocabulary and the texts: `table/NOTICE.md`. 7.8 MB of int8, read once a process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from moorage_gateway.tool_search.wordpiece import pieces

_PLACE = Path(__file__).with_name("table")
MOST_TOKENS = 256
"""Of a text; what is behind them does not count."""


class Table:
    """Vectors of texts: length 1, or 0 where no token is known."""

    def __init__(self, vocabulary: dict[str, int], vectors: Any, scales: Any) -> None:
        self._vocabulary, self._vectors, self._scales = vocabulary, vectors, scales

    @classmethod
    def load(cls) -> Table:
        """The table of this package. Raises OSError when the installation lacks it."""
        tokens = (_PLACE / "vocabulary.txt").read_text("utf-8").split("\n")
        vectors, scales = np.load(_PLACE / "vectors.npy"), np.load(_PLACE / "scales.npy")
        return cls({token: number for number, token in enumerate(tokens)}, vectors, scales.astype(np.float32))

    @property
    def dimensions(self) -> int:
        """Numbers a vector."""
        return int(self._vectors.shape[1])

    def knows(self, word: str) -> bool:
        """Whether a word is a token of its own."""
        return word in self._vocabulary

    def tokens(self, text: str) -> int:
        """How many tokens a text has: for counting what a list of tools costs a model."""
        return len(pieces(text, self._vocabulary))

    def embed(self, text: str) -> Any:
        """The vector of a text, float32."""
        numbers = pieces(text, self._vocabulary)[:MOST_TOKENS]
        if not numbers:
            return np.zeros(self.dimensions, np.float32)
        whole = (self._vectors[numbers] * self._scales[numbers, None]).sum(0, dtype=np.float32)
        length = float(np.linalg.norm(whole))
        return whole / length if length else whole
