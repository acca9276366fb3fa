"""From a manifest to a revision the provider can run: source, environment, contract, name.

Layer: local; between whoever brings manifests (folder, API) and the provider. `deploy` answers as soon as the revision has a name;
its environment is made afterwards, and the conditions tell how that went.

    Refused   the manifest cannot be run here; names the field where one is to blame
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from moorage_api import conditions, source_tree
from moorage_api.built import CA_VARIABLES
from moorage_api.kinds import HostedAgent, notes_outside_kubernetes
from moorage_api.kinds.agent import HostedAgentSpec
from moorage_api.kinds.values import PACKAGE_INDEX
from moorage_api.provider.base import Revision
from moorage_api.provider.loop import Provider
from moorage_api.provider.revisions import revision_of
from moorage_api.source_tree import SourceError
from moorage_gateway.package_index import PackageIndex
from moorage_local import sources
from moorage_local.environments import BuildError, Environments
from moorage_local.program import Program
from moorage_local.sources import SourceTree

log = logging.getLogger(__name__)

# What may change without making another revision: it concerns new sandboxes and sessions, not what runs in them.
WORKSPACE = "/workspace"


class Refused(RuntimeError):
    """Why a manifest cannot be run on this machine; `field` is its path, if one is to blame."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


@dataclass
class _Known:
    agent: HostedAgent
    digest: str
    generation: int
    building: asyncio.Task[None] | None = None
    failed: bool = False


class Deployments:
    """Deploys agents of all tenants. `sources_root` holds snapshots, `index` is awaited when an agent needs it."""

    def __init__(
        self,
        provider: Provider,
        environments: Environments,
        *,
        sources_root: Path,
        fetch: sources.Fetch | None,
        index: Callable[[], Awaitable[PackageIndex | None]],
    ) -> None:
        self._provider = provider
        self._environments = environments
        self._sources = sources_root
        self._fetch = fetch
        self._index = index
        self._known: dict[tuple[str, str], _Known] = {}

    async def deploy(self, tenant: str, agent: HostedAgent, *, base: Path | None) -> str:
        """Names the revision and begins to bring it up; returns its name. Raises Refused, and then the conditions say why too."""
        key = (tenant, agent.name)
        old = self._known.get(key)
        generation = old.generation + 1 if old is not None else 1
        try:
            tree, entry = await self._resolve(tenant, agent.spec, base)
            source = agent.spec.source
            assert source is not None  # `_resolve` refuses images
            environment = await asyncio.to_thread(
                self._environments.digest, tree.path, requirements=source.requirements, python=source.python
            )
        except (SourceError, BuildError, Refused) as error:
            reason = conditions.IMAGE_UNSUPPORTED if agent.spec.source is None else conditions.SOURCE_REFUSED
            self._report(key, agent, generation, reason, str(error))
            field = error.field if isinstance(error, Refused) else _field_in(str(error))
            raise Refused(str(error), field) from error
        digest = revision_of(agent.spec, tree.digest, environment)
        if old is not None and old.digest == digest and old.agent == agent and not old.failed:
            return digest
        for note in notes_outside_kubernetes(agent):
            log.warning("%s: %s", agent.name, note)
        self._cancel(old)
        known = _Known(agent, digest, generation)
        self._known[key] = known
        self._report(key, agent, generation, conditions.RESOLVING, "The environment of the code is being made.")
        known.building = asyncio.create_task(self._bring_up(key, known, tree, entry, base), name=f"deploy {agent.name}")
        return digest

    async def withdraw(self, tenant: str, name: str) -> bool:
        """Takes an agent out; False when it is not known."""
        known = self._known.pop((tenant, name), None)
        if known is None:
            return False
        self._cancel(known)
        await self._provider.withdraw(tenant, name)
        return True

    def names(self) -> list[tuple[str, str]]:
        """(tenant, agent) of all that are deployed."""
        return sorted(self._known)

    def known(self, tenant: str, name: str) -> HostedAgent | None:
        """The manifest last deployed under that name."""
        found = self._known.get((tenant, name))
        return found.agent if found is not None else None

    async def close(self) -> None:
        """Ends what is being brought up."""
        building = [known.building for known in self._known.values() if known.building is not None]
        for task in building:
            task.cancel()
        await asyncio.gather(*building, return_exceptions=True)

    async def _resolve(self, tenant: str, spec: HostedAgentSpec, base: Path | None) -> tuple[SourceTree, str]:
        if spec.source is None:
            raise Refused(
                "images run in a cluster only; on this machine give the agent's code as spec.source", "spec.image"
            )
        if spec.workspace.mount != WORKSPACE:
            raise Refused(f"spec.workspace.mount: on this machine it is always {WORKSPACE}", "spec.workspace.mount")
        tree = await sources.resolve(spec.source, base=base, tenant=tenant, root=self._sources, fetch=self._fetch)
        return tree, source_tree.entrypoint(tree.path, spec.source.entrypoint)

    async def _bring_up(
        self, key: tuple[str, str], known: _Known, tree: SourceTree, entry: str, base: Path | None
    ) -> None:
        spec, source = known.agent.spec, known.agent.spec.source
        assert source is not None
        try:
            made = await self._environments.of(tree.path, requirements=source.requirements, python=source.python)
            mounts = _mounts(spec, base)
        except (BuildError, Refused) as error:
            known.failed = True
            self._report(key, known.agent, known.generation, conditions.ENVIRONMENT_FAILED, str(error))
            return
        except OSError as error:
            known.failed = True
            self._report(key, known.agent, known.generation, conditions.ENVIRONMENT_FAILED, f"this machine: {error}")
            return
        index = await self._index() if PACKAGE_INDEX in spec.egress else None
        env = {name: value for name, value in index.env.items() if name not in CA_VARIABLES} if index else {}
        revision = Revision(
            tenant=key[0],
            agent=key[1],
            revision=known.digest,
            spec=spec,
            contract=source_tree.contract(tree.path, entry, spec.contract),
            program=Program(tree.path, made.python, entry, mounts, env, index.ca_file if index else None),
        )
        self._provider.deploy(revision, generation=known.generation)

    def _report(self, key: tuple[str, str], agent: HostedAgent, generation: int, reason: str, message: str) -> None:
        self._provider.report(*key, agent.wire_spec(), generation=generation, reason=reason, message=message)

    def _cancel(self, known: _Known | None) -> None:
        if known is not None and known.building is not None:
            known.building.cancel()


def _mounts(spec: HostedAgentSpec, base: Path | None) -> tuple[tuple[Path, str], ...]:
    found = []
    for index, mount in enumerate(spec.mounts):
        path = Path(mount.path).expanduser()
        place = (path if path.is_absolute() else (base or Path.cwd()) / path).resolve()
        if base is None:
            raise Refused("spec.mounts is for manifests in the folder of `moorage dev` only", "spec.mounts")
        if not place.exists():
            raise Refused(f"spec.mounts[{index}].path: there is no {place}", f"spec.mounts[{index}].path")
        found.append((place, mount.mount))
    return tuple(found)


def _field_in(message: str) -> str | None:
    head = message.partition(":")[0]
    return head if head.startswith("spec.") and " " not in head else None
