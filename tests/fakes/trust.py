"""What the tests' own HTTP clients trust, made once: each client would read the whole file of authorities anew."""

from __future__ import annotations

import functools
import ssl

import httpx2


@functools.cache
def trusted() -> ssl.SSLContext:
    """The context that httpx makes for a client by itself."""
    return httpx2.create_ssl_context()
