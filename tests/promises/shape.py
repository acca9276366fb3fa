"""The shape of a promise, and where tests lie."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One promise. `tests`: `file::function` below `tests/`."""

    promise: str
    tests: tuple[str, ...]
    lacking: str = ""


CALLS = "component/journal/test_calls.py"
USAGE = "component/journal/test_usage.py"
TOOLS = "component/tools/test_tool_calls.py"
APIS = "component/tools/test_http_apis.py"
IDENTITY = "component/journal/test_workload_identity.py"
CONSENTS = "component/tools/consents/test_consents.py"
RENEWALS = "component/tools/consents/test_renewals.py"
REFUSALS = "component/tools/consents/test_refusals.py"
SIM = "sim/test_simulation.py"
CRASH = "crash/test_{}_kills.py"
BOUNDARY = "crash/test_sweep.py"
SHIM = "component/shim/test_{}.py"
HTTP = "component/gateway_http/test_{}.py"
CONTROL = "component/control/test_{}.py"
EGRESS = "component/egress/test_{}.py"
PROVIDER = "component/provider/conformance.py"
PLATFORM = "component/provider/test_platform.py"
STORE = "component/store/test_{}.py"
ISOLATION = "component/isolation/test_{}.py"
HOSTILE = "isolation/test_{}.py"
JOURNEY = "journey/test_{}.py"
TENANCY = "tenancy/test_{}.py"
API = "api/test_{}.py"
CLUSTER = "cluster/test_{}.py"
OPERATING = "unit/operating/test_{}.py"
PACKAGING = "packaging/test_{}.py"
PROBED = "crash/test_gateway_probes.py::test_of_four_hundred_calls_none_fails_while_a_gateway_ends"
