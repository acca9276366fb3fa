"""The name of every Redis key. The table is turns.md §1; nothing else in the project spells a key."""

from __future__ import annotations

LEDGER = "ledger"  # hash: id, generation, since (ms), settle (ms)
DUE = "due"  # zset: every turn not ended, score = next look (ms)
WAKING = "waking"  # zset: sessions that need a sandbox, score = asked at (ms)
DOOMED = "doomed"  # hash: sandbox → reason; the provider ends it
ARCHIVED = "archived"  # hash: session key → volume that goes, its files are in a verified checkpoint
LEFT = "left"  # hash: volume that was given up → session key that has left it
DELETES = "deletes"  # zset: sessions whose files go
SESSIONS_DUE = "sessions:due"  # zset: every session not deleted, score = next look (ms)
UNFLUSHED = "unflushed"  # zset: ended turns whose response object is not stored yet
OFFERED = "offered"  # set: sandbox ids ever offered in this ledger
CLAIMS = "claims"  # stream: claims made, for the provider's labels
CATALOG = "catalog"  # hash: TENANT/AGENT → entry
ENDPOINTS = "catalog:endpoints"  # hash: TENANT/NAME → model endpoint
TOOLBOXES = "catalog:toolboxes"  # hash: TENANT/NAME → toolbox
ROUTINES = "catalog:routines"  # hash: TENANT/NAME → routine
CATALOG_VERSION = "catalog:version"
ROUTINES_DUE = "routines:due"  # zset: TENANT/NAME of every routine, score = next look (ms)
PLATFORM = "platform"  # hash: token_key, pod_tokens (JSON of pod_tokens.py)
GATEWAYS = "gateways"  # zset: sandbox-port URLs, score = last beat (ms)
APPLIES = "applies"  # list: configuration requests for the provider
KEYS_VERSION = "keys:version"  # changes whenever an API key does
ENDING = "sessions:deleting"  # set: sessions whose deletion is not finished
AUDIT_WRITERS = "audit:writers"  # set: every audit chain whose head is in Redis

HINT_PROVIDER = "hint:provider"
HINT_CATALOG = "hint:catalog"
HINT_SERVING = "hint:serving"  # a sandbox without a session said where it serves; payload = sandbox, a space, its URL
HINT_TURNS = "hint:turns"  # a turn became due now; payload = response id
HINT_LOG = "hint:log"  # a watched log grew; payload = response id
HINT_ROUTINES = "hint:routines"  # a routine is due now; payload = field
HINT_ROUTES = "hint:routes"  # a route changed; payload = session key, or empty for a beat


def turn(response: str) -> str:
    """Hash of one turn."""
    return f"t:{response}"


def log(response: str) -> str:
    """List of a turn's events; index = sequence_number; entry = `BEGUN SRC JSON`."""
    return f"e:{response}"


def attempts(response: str) -> str:
    """List of a turn's attempts, JSON each, in order."""
    return f"a:{response}"


def journal(response: str) -> str:
    """Hash of a turn's calls past the boundary, by entry (`journal_scripts`)."""
    return f"j:{response}"


def journal_order(response: str) -> str:
    """List of the journal's entries, as they were first started."""
    return f"jl:{response}"


def journal_numbers(response: str) -> str:
    """Hash: which entry a number of an attempt is, and counts."""
    return f"jn:{response}"


def watch(response: str) -> str:
    """Mark: somebody who does not own the turn reads its log, so that hints are worth sending."""
    return f"watch:{response}"


def session(key: str) -> str:
    """Hash of one session (`TENANT:PARTITION`)."""
    return f"s:{key}"


def queue(key: str) -> str:
    """List of a session's waiting turns."""
    return f"q:{key}"


def approvals(key: str) -> str:
    """Hash of one session: calls that a person must approve (`approvals.py`)."""
    return f"ap:{key}"


def called(key: str) -> str:
    """Hash of one session: `TOOLBOX/UPSTREAM` → the last response of the agent that it called there."""
    return f"called:{key}"


def consent_link(link: str) -> str:
    """One link by which a user consents (`consents.py`)."""
    return f"oauth:link:{link}"


def consents_asked(response: str) -> str:
    """Hash of one turn: the consents that its calls waited for."""
    return f"oauth:asked:{response}"


def consent_lock(place: str) -> str:
    """Who renews, or writes, one user's tokens for one upstream now."""
    return f"oauth:lock:{place}"


def consents_wrong(tenant: str) -> str:
    """Hash of one tenant: what is wrong with the manifests of its toolboxes."""
    return f"oauth:wrong:{tenant}"


def sandbox(sandbox_id: str) -> str:
    """Hash of one sandbox's descriptor."""
    return f"x:{sandbox_id}"


def pool(tenant: str, agent: str, revision: str) -> str:
    """List of ready sandboxes of one revision."""
    return f"pool:{tenant}/{agent}/{revision}"


def sessions(tenant: str) -> str:
    """Zset of a tenant's session keys, score = created (ms)."""
    return f"sessions:{tenant}"


def sessions_whole(tenant: str) -> str:
    """Mark: the tenant's listing index holds all its sessions."""
    return f"sessions:{tenant}:whole"


def audit_head(writer: str) -> str:
    """Hash of one audit chain's head."""
    return f"audit:head:{writer}"


def witness(who: str) -> str:
    """Counter of one writer's scripts (turns.md §1)."""
    return f"wit:{who}"


def idempotency(tenant: str, user: str, agent: str, key: str) -> str:
    """Hash (response, hash) of an Idempotency-Key; the caller hashes long keys."""
    return f"idem:{tenant}/{user}/{agent}/{key}"


def retry(credential: str, body_hash: str) -> str:
    """The last turn of (credential, path + body), for clients that only count their retries."""
    return f"retry:{credential}/{body_hash}"


def answer(request: str) -> str:
    """List that carries the provider's answer to one apply request."""
    return f"answer:{request}"


def routine(name: str) -> str:
    """Hash of one routine (`TENANT/NAME`): version, and its state as JSON."""
    return f"rt:{name}"


def run_lease(invocation: str) -> str:
    """Hash: which gateway waits for the answer of a run's invocation (`run_leases.py`)."""
    return f"ri:{invocation}"
