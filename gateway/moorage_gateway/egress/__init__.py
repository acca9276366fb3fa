"""The way out of a sandbox: one CONNECT proxy that decides on host and port, resolves itself, and pins what it resolved.

Layer: gateway. `addresses` and `rules` are pure; `proxy` is the server on the egress port.
"""
