"""The one test door behind `scripts/test`: picks tiers and groups, runs them in processes of their own, closes with counts.

scripts/test                      everything but what needs a cluster or --long
scripts/test --only crash -x      one tier or group (as routines, sweep); further arguments go to pytest; --cluster for what of it is there
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Tier:
    """One pytest run. `workers`: how many processes share it. `dist`: what goes to one worker; where that is a file (each has a platform of
    its own), `first` names those that take longest: begun last, one of them would keep a single worker busy at the end."""

    name: str
    expression: str
    workers: int = 0
    dist: str = "loadgroup"
    first: tuple[str, ...] = ()


TIERS = (
    Tier("unit", "unit and not long", workers=2),
    Tier("component", "component and not long and not isolation and not crash and not tenancy and not sim", workers=2),
    Tier("races", "races and not long", workers=2),
    Tier("provider", "provider and not long", workers=2, dist="loadfile"),
    Tier("isolation", "isolation and not long", workers=2, dist="loadfile", first=("hogs", "ways_out")),
    Tier("tenancy", "tenancy and not long", workers=2, dist="loadfile", first=("sessions",)),
    Tier("packaging", "packaging and not long", workers=2),
    Tier(
        "journey",
        "journey and not long and not crash and not tenancy",
        workers=2,
        dist="loadfile",
        first=(
            "framework_toolboxes",
            "routines",
            "frameworks",
            "models",
            "dev",
            "steps",
            "cli",
            "agent_calls",
            "checkpoints",
        ),
    ),
    Tier("crash", "crash and not long", workers=2, dist="loadfile", first=("sweep", "sandbox_kills", "gateway_kills")),
    Tier("sim", "sim and not long", workers=2),
    Tier(
        "api",
        "api and not long",
        workers=2,
        dist="loadfile",
        first=("operator", "crash_points", "doctor", "toolboxes", "routines"),
    ),
)
"""`api` runs on a real API server and etcd without a node wherever these can be had, and says why it does not elsewhere."""
CLUSTER = Tier("cluster", "cluster and not long")
"""On a real Kubernetes node of its own: only when asked for (--cluster, --only cluster); it needs root, Go, packages and an hour."""
EACH_CHANGE = Tier("cluster", "cluster and each_change and not long")
"""What CI runs of it by itself, half an hour: the chart as it is installed, everything that can die under a call, and twenty points of the
crash sweep."""


def main() -> int:
    """Runs what was asked; exit 0 only when everything that ran passed."""
    parser = argparse.ArgumentParser(
        prog="scripts/test", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", help="a tier or marked group")
    parser.add_argument("--long", action="store_true", help="also the long runs")
    parser.add_argument("--cluster", action="store_true", help="also the cluster tier (docs/cluster-tests.md)")
    options, rest = parser.parse_known_args()
    known = (*TIERS, CLUSTER) if options.cluster or options.only == CLUSTER.name else TIERS
    if known is TIERS and not options.only and os.environ.get("CI") == "true":
        known = (*TIERS, EACH_CHANGE)
        os.environ["MOORAGE_NODE_OPTIONAL"] = "1"
    tiers = [t for t in known if options.only in (None, t.name)]
    if options.only and not tiers:
        group = options.only if options.cluster else f"{options.only} and not cluster"
        tiers = [Tier(options.only, group)]
    if options.long:
        tiers = [replace(t, expression=t.expression.replace(" and not long", "")) for t in tiers]
        os.environ["MOORAGE_LONG"] = "1"
    totals = {"passed": 0, "failed": 0, "skipped": 0}
    reasons: dict[str, int] = {}
    broken = []
    with TemporaryDirectory() as scratch:
        os.environ["MOORAGE_TEST_ENVIRONMENTS"] = str(Path(scratch, "environments"))  # fakes/environments.py
        for tier in tiers:
            began = time.monotonic()
            report = Path(scratch) / f"{tier.name}.xml"
            status = run(tier, report, rest)
            counts = read(report, reasons)
            for key in totals:
                totals[key] += counts[key]
            print(f"== {tier.name}: {counts} in {time.monotonic() - began:.0f} s", flush=True)
            if status not in (0, 5):  # 5: nothing collected, which another tier may well have
                broken.append(tier.name)
    for reason, count in sorted(reasons.items()):
        print(f"skipped {count}: {reason}")
    if broken:
        print(f"failed tiers: {', '.join(broken)}")
    print(f"{totals['passed']} passed, {totals['failed']} failed, {totals['skipped']} skipped")
    return 1 if broken or totals["failed"] or not totals["passed"] else 0


def marks(expression: str) -> list[str]:
    """The marks that a test must have for an expression to pick it; none where it says `or`, whose tests may be anywhere."""
    words = [] if re.search(r"\bor\b|\(", expression) else re.sub(r"\bnot\s+\w+", "", expression).split()
    return [word for word in words if word != "and"]


def files(expression: str) -> list[str]:
    """The test files that name all those marks. pytest would import every file of the suite to pick one tier's tests, once a worker;
    that a mark stands in the text of its own file is a test's to hold (`tests/packaging/test_tiers.py`)."""
    names = [re.compile(rf"\bmark\.{name}\b") for name in marks(expression)]
    found = [(path, path.read_text("utf-8")) for path in sorted((ROOT / "tests").rglob("test_*.py")) if path.is_file()]
    return [str(path.relative_to(ROOT)) for path, text in found if all(name.search(text) for name in names)]


def in_order(paths: list[str], first: tuple[str, ...]) -> list[str]:
    """The files of those names before the others."""
    begun = [f"test_{name}" for name in first]
    return sorted(paths, key=lambda path: begun.index(Path(path).stem) if Path(path).stem in begun else len(begun))


def named(rest: list[str]) -> bool:
    """Whether the further arguments say themselves where the tests are."""
    return any(not each.startswith("-") and (ROOT / each.partition("::")[0]).exists() for each in rest)


def run(tier: Tier, report: Path, rest: list[str]) -> int:
    """One pytest process."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", tier.expression, f"--junitxml={report}", *rest]
    if not named(rest):
        command += in_order(files(tier.expression), tier.first)
    if tier.workers and not any(a.startswith("-n") for a in rest):
        command += ["-n", str(min(tier.workers, os.cpu_count() or 1)), "--dist", tier.dist]
        command += ["--no-loadscope-reorder"] * bool(tier.first)
    print(f"== {tier.name}: {tier.expression}", flush=True)
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def read(report: Path, reasons: dict[str, int]) -> dict[str, int]:
    """Counts of a junit file; skip reasons are added up."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    if not report.exists():
        return counts
    for case in ElementTree.parse(report).iter("testcase"):
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            counts["failed"] += 1
        elif skipped is not None:
            counts["skipped"] += 1
            reason = (skipped.get("message") or "").strip()
            reasons[reason] = reasons.get(reason, 0) + 1
        else:
            counts["passed"] += 1
    return counts


if __name__ == "__main__":
    sys.exit(main())
