"""Checkpoints of a session's files: packs and a manifest, made from a volume and put back into one. docs/checkpoints.md.

Layer: I/O rim, a library. It knows files and nothing of sessions, stores or gateways: packs go to a `put` and come from a `get`.
Everything here is synchronous and meant for a child process of its own.
"""
