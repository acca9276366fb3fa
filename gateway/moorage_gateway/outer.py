"""What a gateway reaches models and tools with: connections, keys, identities, users' consents.

Layer: gateway, composition; called by `core.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moorage_api.catalog import EndpointEntry, ToolboxEntry
from moorage_api.ledger.consents import ConsentLedger
from moorage_gateway.clock import Clock
from moorage_gateway.consents.flow import Consents, Means
from moorage_gateway.consents.records import ConsentRecords
from moorage_gateway.consents.sealing import Sealing
from moorage_gateway.models.asking import Upstreams
from moorage_gateway.models.credentials import Credentials, FolderCredentials, NoCredentials
from moorage_gateway.models.identity import WorkloadTokens
from moorage_gateway.models.kind import Models
from moorage_gateway.models.places import Allowed
from moorage_gateway.settings import Settings
from moorage_gateway.store import Store


@dataclass(frozen=True)
class Outside:
    """What models are reached with, where the settings are not the whole answer: a laptop's folder names both."""

    credentials: Credentials | None = None
    allowed: Allowed | None = None


def models(
    settings: Settings, find: Callable[[str, str], EndpointEntry | None], clock: Clock, outside: Outside
) -> Models:
    """Calls of models, with what tools are reached by, too. `find`: the catalog's."""
    named, held, folder = frozenset(settings.allowed_upstreams), settings.credentials, settings.workload_tokens
    credentials = outside.credentials or (
        FolderCredentials(Path(held), clock.monotonic) if held is not None else NoCredentials()
    )
    upstreams = Upstreams(outside.allowed or (lambda: named))
    tokens = Path(folder) if folder is not None else None
    identity = WorkloadTokens(upstreams, tokens, frozenset(settings.workload_hosts), clock.monotonic)
    return Models(find, upstreams, credentials, clock, identity=identity)


def consents(
    settings: Settings, find: Callable[[str, str], ToolboxEntry | None], store: Store, by: Models, ledger: ConsentLedger
) -> Consents:
    """Users' consents, over the connections of models and with keys from the same place."""
    sealing = Sealing([each.get_secret_value() for each in settings.consent_keys])
    means = Means(by.upstreams, by.credentials, find, sealing, by.clock)
    return Consents(means, ledger, ConsentRecords(store, sealing), settings.public_url or "")
