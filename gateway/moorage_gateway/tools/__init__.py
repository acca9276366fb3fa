"""Toolboxes: the agent's own MCP client speaks to one URL, and the gateway to the servers behind it (design.md §9).

rpc            what an MCP client may say to a toolbox, in both eras, and in what form it is answered
names          whose tool a name is, what may be called, and what is an effect
fingerprints   what makes two calls the same one
definitions    what servers say of their tools, checked and bounded
results        what a tool gave, or why it gave nothing, as a result that a model can act on
approving      which calls wait for a person, and what their agent reads
pins           which definition of a tool was approved
gates          how many calls a server gets at a time, and when it is left alone
servers        what a type of upstream must do; a further type is one class
mcp            the type `mcp`: a server that speaks MCP over streamable HTTP
sse            the same over the older HTTP with SSE; messages: what servers say, checked
http_api       the type `openapi`: an HTTP API whose operations are the tools; documents: what describes it
agents         the type `agent`: a hosted agent of the same tenant
opening        what opens a server, and how it stays out of answers
tokens         OAuth tokens; authorized: a server that is opened by one; per_user: by its user's own (consents/)
reading        answers of servers, no redirect followed, no more read than may be
making         of which type an upstream is
sessions       what a server of the older era keeps for an agent's session
meta           the two tools of a toolbox with `toolSearch`, and what they may be asked
searching      their calls, and what is kept for them
kind           the call kind that joins them; calling, listing: its two calls
trying         the same for people, by the control API
"""
