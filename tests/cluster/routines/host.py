"""Runs the agent that AGENT names."""

import os
import runpy

runpy.run_path(f"/app/agents/{os.environ['AGENT']}.py", run_name="__main__")
