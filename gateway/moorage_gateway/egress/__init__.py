"""The way out of a sandbox: one CONNECT proxy that decides on host, port and the name that TLS tells, resolves itself, and pins what it
resolved.

Layer: gateway. `addresses`, `rules`, `requests`, `hello` and `budgets` are pure; `connecting` and `passing` move bytes; `counts` is what
is counted; `proxy` is the server on the egress port.
"""
