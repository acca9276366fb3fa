"""Runs the agent that AGENT names."""

import os
import runpy

runpy.run_path(f"/app/agents/{os.environ['AGENT']}/host.py", run_name="__main__")
