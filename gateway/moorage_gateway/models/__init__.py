"""Models: the agent's own client speaks to its provider, and the gateway puts the key in (design.md §9).

protocols      routes, addresses, keys and ends of streams of each provider's protocol
usage          tokens and names that an answer tells of itself
fingerprints   what makes two requests the same one
places         which servers may be connected to
aiming         what an endpoint is sent of a request
streams        a stream without the counts that the agent did not ask for
asking         one request over the wire, streamed, with its deadlines
performing     a request made: tries, endpoints that stand in, bounds
kind           the call kind that joins them
credentials    keys as files
identity       tokens for the gateway's own workload, in place of a key
"""
