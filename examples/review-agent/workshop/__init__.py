"""The review agent's tools: an MCP server for git repositories and packages. `python -m workshop` runs it, outside of any sandbox."""
