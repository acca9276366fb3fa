"""Header names on the hops between caller, gateway, shim and agent. Layer: the floor.

Sources: protocols.md §2, §3.3. All lower case, as ASGI carries them.
"""

SECRET = "x-moorage-secret"  # gateway → shim; dropped before the agent
POD_TOKEN = "x-moorage-pod-token"  # shim → gateway, beside the bearer; never to an agent, never past the egress proxy
SESSION = "x-moorage-session"
EPOCH = "x-moorage-epoch"
RUN_SECONDS = (
    "x-moorage-run-seconds"  # gateway → shim, of a routine's invocation: how long it may last; dropped before the agent
)
ANSWERED = (
    "x-moorage-answered"  # shim → gateway, of a relayed answer that may look like the shim's own: it is the agent's
)
TURN = "x-moorage-turn"
ATTEMPT = "x-moorage-attempt"
AGENT_RESPONSE_ID = "x-agent-response-id"
AGENT_USER_ID = "x-agent-user-id"
AGENT_SESSION_ID = "x-agent-session-id"  # gateway → caller, always
AGENT_INVOCATION_ID = "x-agent-invocation-id"
REQUEST_ID = "x-request-id"
TRACE_ID = "x-moorage-trace-id"  # gateway → caller
TRACEPARENT = "traceparent"
IDEMPOTENCY_KEY = "idempotency-key"
RETRY_COUNT = "x-stainless-retry-count"  # the stock client's only sign of a repeat
CLIENT_PREFIX = "x-client-"  # handed to user code

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        POD_TOKEN,
    }
)
