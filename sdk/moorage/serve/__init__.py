"""The agent server behind `HostedAgent.serve()`: plain ASGI on uvicorn, small enough to fork for every session.

Layer: SDK. `rendering` and `shapes` are pure, `inbound` classifies requests, `turns` runs the agent, `responses` and `invocations` are the
two protocols, `app` routes, `server` listens. Nothing here imports pydantic, an HTTP client or a framework.
"""
