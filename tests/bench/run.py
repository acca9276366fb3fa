"""`scripts/bench`: measures, and says whether the gates hold. `--json` for scripts, `--only NAME`, `--quick`, `--markdown`.

`scripts/bench NAME` is `--only NAME`; `--node` adds what needs a real Kubernetes node, alone when nothing is named. NAME is a bench or the
beginning of a line's name. Progress goes to stderr, the result to stdout; exit 1 when a gate fails.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import report
from bench.effort import FULL, QUICK
from bench.plan import BENCHES, NODE_BENCHES, chosen, run

BUSY = 0.5  # load average above which other work disturbs


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures against docs/benchmarks.md.")
    parser.add_argument("--json", action="store_true", help="a list of objects on stdout")
    parser.add_argument("--markdown", action="store_true", help="the table of docs/benchmarks.md")
    parser.add_argument(
        "--quick", action="store_true", help="fewer and shorter repetitions: guards the gates, records nothing"
    )
    parser.add_argument("--only", metavar="NAME", action="append", default=[], help=f"one of {', '.join(_names())}")
    parser.add_argument("names", metavar="NAME", nargs="*", help="as --only")
    parser.add_argument("--node", action="store_true", help="what needs a real Kubernetes node, as root")
    asked = parser.parse_args()
    names = [*asked.only, *asked.names]
    benches = chosen(names) if names or not asked.node else []
    benches += NODE_BENCHES if asked.node else ()
    if not benches:
        parser.error(f"no bench is named {' or '.join(names)}; there are {', '.join(_names())}")
    say = functools.partial(print, file=sys.stderr, flush=True)
    if os.getloadavg()[0] > BUSY:
        say(f"bench: the load average is {os.getloadavg()[0]:.1f}: times, and less so CPU figures, come out too high")
    lines = run(benches, QUICK if asked.quick else FULL, say)
    show = report.as_json if asked.json else report.as_markdown if asked.markdown else report.as_table
    print(show(lines))
    for sentence in report.failures(lines):
        print(f"gate: {sentence}", file=sys.stderr)
    return 1 if report.failures(lines) else 0


def _names() -> list[str]:
    return [bench.name for bench in BENCHES]


if __name__ == "__main__":
    raise SystemExit(main())
