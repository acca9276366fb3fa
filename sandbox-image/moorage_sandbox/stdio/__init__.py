"""Runs one program of a toolbox, which speaks MCP over stdin and stdout, and lets gateways ask it. Layer: a process of its own beside the
sandboxes (`python -m moorage_sandbox.stdio`); stdlib only.

    lines      what a program prints, cut into lines of bounded length (pure)
    messages   JSON-RPC as both sides of a program write it, of both eras (pure)
    hiding     its secrets are taken out of what it says (pure)
    telling    what it prints for people, bounded
    program    the process: begun, greeted, asked, ended, begun again
    serving    the gateways' side: HTTP
"""
