"""Models: the agent's own client speaks to its provider, and the gateway puts the key in (design.md §9).

protocols      routes, addresses, keys and ends of streams of each provider's protocol
fingerprints   what makes two requests the same one
places         which servers may be connected to
asking         one request over the wire, streamed, with its deadlines
kind           the call kind that joins them
credentials    keys as files
"""
