"""A build in a cluster: a source in, one bundle of code and environment out. Run by the stock image in a Job of its own.

__main__      the process: configuration, exit status, last words
build         the steps in order
git           the files of one commit, in a process of its own
environment   what uv makes of the requirements
outlet        the way out: a proxy on loopback that shows the build's proof to the egress proxy

Its way to the gateway is `moorage_sandbox.platform`. The code that runs here (an agent's build backend, say) is as little trusted as
the agent: it holds the build's own token, which opens what the build needs and nothing else.
"""
