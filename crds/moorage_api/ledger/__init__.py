"""The shared truth of what is in flight: Redis keys, the Lua that writes them, typed doors to both.

Layer: the floor; no Redis client in here: callers hand in a `Runner`. The rules are turns.md; every write is one script.
"""
