"""Users' consents: tokens of a single user for an upstream of a toolbox, by OAuth's authorization code with PKCE (decisions/0035).

shapes         whose a consent is, for what, and what is kept of it
sealing        how tokens are kept: AES-256-GCM under a key of the settings
records        the objects in the store, a version each
holding        a token for a call: read, renewed by one at a time, asked for where there is none
flow           a user's way: link, browser, authorization server, code, tokens; and back, revoked
pages          what their browser shows
"""
