"""Builds against a real gateway: its sandbox port, its egress proxy, its store, and a Valkey."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fakes import pod_tokens as cluster
from fakes.catalogs import learned
from fakes.gateway_settings import settings
from fakes.valkey import Valkey
from moorage_api import names, tokens
from moorage_api.ledger.provider import ProviderLedger
from moorage_gateway import package_index
from moorage_gateway.app import Gateway, connect, create_gateway
from moorage_gateway.bundles import bundle_key
from moorage_gateway.ledger_client import LedgerClient
from moorage_sandbox.platform import Platform
from moorage_sandbox.proof import Proof

KEY = "5a" * 32
AGENT = "a"
JOB = "moorage-build-0123456789abcdef"
ACCOUNT = "moorage-sandbox"  # as the tests' issuer says
WITHIN = 100.0


@dataclass
class World:
    """A gateway that knows the platform's keys. Proofs are of pods of the tests' own cluster."""

    gateway: Gateway
    folder: Path
    index: package_index.Offer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway.sandbox.port}"

    @property
    def egress(self) -> str:
        return f"127.0.0.1:{self.gateway.egress_port}"

    def pod_token(self, pod: str, **other: Any) -> str:
        """A file with the pod's token."""
        file = self.folder / names.new_secret()[:8]
        file.write_text(cluster.token(cluster.claims(pod, time.time(), **other)))
        return str(file)

    def build_proof(self, *, pod: str = f"{JOB}-abcde", **other: Any) -> Proof:
        """Of a build."""
        return Proof(tokens.sign_build(self.build(**other), KEY), self.pod_token(pod))

    def build(self, **other: Any) -> tokens.BuildIdentity:
        """Who a build is."""
        fields = {"job": JOB, "account": ACCOUNT, "tenant": cluster.TENANT, "agent": AGENT, "source": "", "reach": ()}
        return tokens.BuildIdentity(**{**fields, **other})

    def sandbox_proof(self, agent: str = AGENT) -> Proof:
        """Of a sandbox."""
        sandbox = names.new_sandbox_id()
        who = tokens.Identity(sandbox, cluster.TENANT, agent, "r1", "ws-1")
        return Proof(tokens.sign(who, KEY), self.pod_token(sandbox))

    def platform(self, proof: Proof, within: float = WITHIN) -> Platform:
        return Platform(self.url, proof, until=time.monotonic() + within)

    async def uploaded(self, data: bytes, digest: str) -> None:
        """As `moorage up` leaves a bundle."""
        await self.gateway.core.store.put(bundle_key(cluster.TENANT, digest), data)


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    running = Valkey()
    yield running
    running.close()


@pytest.fixture
async def world(valkey: Valkey, tmp_path: Path) -> AsyncIterator[World]:
    told = settings(valkey, tmp_path / "store")
    index = package_index.Offer(package_index.read_settings(os.environ, Path.home()), now=time.monotonic)
    gateway = await create_gateway(told, access_sink=lambda _: None, index=index)
    client = LedgerClient(connect(told), who="provider")
    try:
        await gateway.start()
        await client.found()
        provider = ProviderLedger(client)
        await provider.set_pod_tokens(cluster.published())
        await provider.set_token_key(KEY)
        await learned([gateway], lambda known: known.pod_tokens is not None and known.token_key is not None, within=30)
        yield World(gateway, tmp_path, index)
    finally:
        await gateway.stop()
        await client.aclose()
