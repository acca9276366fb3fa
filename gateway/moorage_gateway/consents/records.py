"""Consents in the object store: `consents/TENANT/USER/TOOLBOX/UPSTREAM/VERSION.json`, the highest version counts. Layer: gateway, I/O rim.

They last: a user is not asked again because Redis was emptied. Tokens are sealed; that there is a consent, whose, for what and since when,
is not. Methods raise StoreError.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from typing import Any

from moorage_gateway.consents.sealing import Sealing
from moorage_gateway.consents.shapes import GIVEN, Consent, NoKey, Subject, Tokens, folder_of
from moorage_gateway.store import Store, StoreError

MOST_LISTED = 1000
"""Consents of one page."""
MOST_LOOKED = 1000
"""Places that are looked at for one page: those that are over are kept, and not shown."""
MOST_VERSIONS = 10_000
"""What one look at a folder of the store may give: older ones are removed, where the store lets them be."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sealed:
    """A version as the store has it: nobody reads its tokens without the key."""

    subject: Subject
    version: int
    key: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Page:
    """Some consents; `next`: the place after which there may be more, empty: there are none."""

    data: list[Consent]
    next: str


class ConsentRecords:
    """Reads and writes them."""

    def __init__(self, store: Store, sealing: Sealing) -> None:
        self._store = store
        self._sealing = sealing

    async def latest(self, subject: Subject) -> Consent | None:
        """The newest version; one whose tokens no key opens has none."""
        for _ in range(3):  # a version that is read may be removed by whoever writes the next one
            keys = await self._store.list(subject.folder, limit=MOST_VERSIONS)
            if not keys:
                return None
            data = await self._store.get(keys[-1])
            if data is not None:
                return self._read(keys[-1], data)
        return None

    def sealed(self, consent: Consent) -> Sealed:
        """As it will be kept. Raises NoKey."""
        key = f"{consent.subject.folder}{consent.version:016d}.json"
        kept: dict[str, Any] = asdict(consent) | {"tokens": None, "scopes": list(consent.scopes)}
        if consent.tokens is not None:
            kept["sealed"] = self._sealing.seal(json.dumps(asdict(consent.tokens)).encode(), key)
        return Sealed(consent.subject, consent.version, key, json.dumps(kept, sort_keys=True).encode())

    async def put(self, sealed: Sealed) -> None:
        """Writes a version; those before it are removed."""
        await self._store.put(sealed.key, sealed.data)
        try:
            for old in await self._store.list(sealed.subject.folder, limit=MOST_VERSIONS):
                if old < sealed.key:
                    await self._store.delete(old)
        except StoreError as why:
            log.info("older versions of a consent stay until the next one: %s", why)

    async def given(self, tenant: str, user: str = "", *, after: str = "", limit: int = MOST_LISTED) -> Page:
        """Those that count, of a tenant or of one of its users, `limit` at most; of the places behind `after`."""
        base, found, last = folder_of(tenant), list[Consent](), ""
        async with aclosing(self._newest(folder_of(tenant, user), f"{base}{after}/~" if after else "")) as newest:
            looked = 0
            async for key in newest:
                if looked == MOST_LOOKED or len(found) == limit:
                    return Page(found, last)
                looked += 1
                data = await self._store.get(key)
                consent = self._read(key, data) if data is not None else None
                if consent is not None and consent.state == GIVEN:
                    found.append(consent)
                last = key.rpartition("/")[0].removeprefix(base)
        return Page(found, "")

    async def _newest(self, folder: str, after: str) -> AsyncGenerator[str, None]:
        """The key of each place's newest version. Versions of a place stand together, the newest last."""
        newest = ""
        while keys := await self._store.list(folder, after=after):
            for key in keys:
                if newest and key.rpartition("/")[0] != newest.rpartition("/")[0]:
                    yield newest
                newest = key
            after = keys[-1]
        if newest:
            yield newest

    def _read(self, key: str, data: bytes) -> Consent | None:
        try:
            kept = json.loads(data)
            sealed = kept.pop("sealed", None)
            subject = Subject(**kept.pop("subject"))
            consent = Consent(**{**kept, "subject": subject, "scopes": tuple(kept["scopes"])})
            if sealed is None or not key.startswith(subject.folder):
                return consent
            tokens = Tokens(**json.loads(self._sealing.open(sealed, key)))
            return Consent(**{**vars(consent), "tokens": tokens})
        except NoKey as why:
            log.warning("%s", why)
            return consent
        except (ValueError, KeyError, TypeError):
            log.warning("the object %s is no consent", key)
            return None
