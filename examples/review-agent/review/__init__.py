"""The review engine: three static checks on two versions of a Python project, without a model and without running any of its code.

It knows nothing of the platform: `conversation.answer` takes a sentence and a folder and yields markdown. `host.py` one folder up
is the only file that imports `moorage`; `python -m review "pypi:httpx 0.27.2..0.28.1"` is the same engine in a terminal.
"""
