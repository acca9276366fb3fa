"""Consents in the object store: `consents/TENANT/USER/TOOLBOX/UPSTREAM/VERSION.json`, the highest version counts. Layer: gateway, I/O rim.

They last: a user is not asked again because Redis was emptied. Tokens are sealed; that there is a consent, whose, for what and since when,
is not. Methods raise StoreError.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field
from typing import Any

from moorage_gateway.consents.sealing import Sealing
from moorage_gateway.consents.shapes import GIVEN, Consent, NoKey, Subject, Tokens, folder_of
from moorage_gateway.store import Store, StoreError

MOST_LISTED = 1000
"""Consents that one listing shows."""
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

    async def given(self, tenant: str, user: str = "") -> list[Consent]:
        """Those that count, of a tenant or of one of its users; at most `MOST_LISTED`."""
        newest: dict[str, str] = {}
        for key in await self._store.list(folder_of(tenant, user), limit=10 * MOST_LISTED):
            newest[key.rpartition("/")[0]] = key
        found = []
        for key in list(newest.values())[:MOST_LISTED]:
            data = await self._store.get(key)
            consent = self._read(key, data) if data is not None else None
            if consent is not None and consent.state == GIVEN:
                found.append(consent)
        return found

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
