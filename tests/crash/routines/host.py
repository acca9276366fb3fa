"""Thirty steps, each one post to a ledger. Its input is what its keys begin with."""

import json
import os
import urllib.request

import moorage

STEPS = 30
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the ledger is no model, and needs no proxy


def post(key):
    body = json.dumps({"key": key}).encode()
    with DIRECT.open(urllib.request.Request(f"{os.environ['LEDGER_URL']}/post", body), timeout=60) as answer:
        return json.load(answer)["posted"]


def there(key):
    with DIRECT.open(f"{os.environ['LEDGER_URL']}/is/{key}", timeout=60) as answer:
        return json.load(answer)["found"]


def done(key):
    """Posted once: where nobody knows whether it was, the ledger is asked before it is posted again."""
    while True:
        try:
            return moorage.step("post", post, key)
        except moorage.OutcomeUnknown:
            if there(key):
                return key


def agent(items, ctx):
    run = moorage.text_of(items)
    for n in range(STEPS):
        done(f"{run}-{n}")
        yield f"{n} "


if __name__ == "__main__":
    moorage.HostedAgent(agent=agent).serve()
