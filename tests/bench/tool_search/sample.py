"""Draws the tools that questions are written for, before anything is tuned: `python tests/bench/tool_search/sample.py`.

Every tool has the same chance, whatever its service; a tool that one already drawn stands for (`questions.same`) is passed over.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

SEED, DRAWN = 20261127, 200


def main() -> None:
    """A line a tool: its place, server, name and description."""
    lines = Path(__file__).with_name("tools.jsonl").read_text("utf-8").splitlines()
    for tool in random.Random(SEED).sample([json.loads(line) for line in lines], DRAWN):
        sys.stdout.write(f"{tool['server']}/{tool['name']}\t{tool['description'][:150]}\n")


if __name__ == "__main__":
    main()
