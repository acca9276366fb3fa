"""`python -m moorage_sandbox.building`: one build, from a config file. Layer: roof.

Its outcome stands in the termination message. Exit 0 with a built bundle; 3 when the source is at fault; 1 when the platform is, and
trying again may help.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from moorage_api import built, conditions
from moorage_api.built import Failed
from moorage_sandbox.building.build import build
from moorage_sandbox.building.config import BuildConfig
from moorage_sandbox.errors import NoProof
from moorage_sandbox.platform import Unreachable


def main() -> int:
    """Entry; the exit status."""
    parser = argparse.ArgumentParser(prog="moorage_sandbox.building", description="Builds one source.")
    parser.add_argument("--config", type=Path, required=True, help="a BuildConfig as JSON")
    parser.add_argument("--work", type=Path, required=True, help="an empty folder")
    parser.add_argument("--told", type=Path, required=True, help="where the outcome is written to")
    given = parser.parse_args()
    config = BuildConfig.from_json(given.config.read_bytes())
    status = 0
    try:
        outcome = build(config, given.work, os.environ, until=time.monotonic() + config.within)
        status = built.FAULT if isinstance(outcome, Failed) else 0
    except (Unreachable, NoProof, OSError) as fault:
        outcome, status = Failed(conditions.ENVIRONMENT_FAILED, f"the build was interrupted: {fault}"), 1
    given.told.write_text(built.told(outcome), "utf-8")
    sys.stdout.write(f"{built.told(outcome)}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
