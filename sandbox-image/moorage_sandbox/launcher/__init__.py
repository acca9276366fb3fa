"""Starts agent processes from a pre-imported server, each sandbox in namespaces of its own.

Layer: runs in the *agent's* environment, stdlib only, by path (`python -I …/launcher zygote …`); nothing of the platform is importable
there. Called by `moorage_local.zygote` (control socket of the zygote) and by the shim (control channel of a sandbox's init).

    zygote   one a revision: runs the entry up to `serve()`, then forks an init for every sandbox asked for
    init     one a sandbox: PID 1 of its namespaces; forks agent processes, opens connections, kills, reaps
    agent    returns from the fork point with its own environment, output pipe and limits
"""
