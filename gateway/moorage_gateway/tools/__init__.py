"""Toolboxes: the agent's own MCP client speaks to one URL, and the gateway to the servers behind it (design.md §9).

rpc            what an MCP client may say to a toolbox, in both eras, and in what form it is answered
names          whose tool a name is, what may be called, and what is an effect
fingerprints   what makes two calls the same one
definitions    what servers say of their tools, checked and bounded
results        what a tool gave, or why it gave nothing, as a result that a model can act on
pins           which definition of a tool was approved
gates          how many calls a server gets at a time, and when it is left alone
servers        what a type of upstream must do; a further type is one class
mcp            the type `mcp`: a server that speaks MCP over streamable HTTP
sessions       what a server of the older era keeps for an agent's session
meta           the two tools of a toolbox with `toolSearch`, and what they may be asked
searching      their calls, and what is kept for them
kind           the call kind that joins them; calling, listing: its two calls
trying         the same for people, by the control API
"""
