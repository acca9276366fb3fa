"""Thirty steps, each one post by a tool of a toolbox, since a pod reaches no ledger. Its input is what its keys begin with.

Beside the files of `tests/crash/sweep/agents`. A step may run again, since the tool in it is journaled as well.
"""

from in_pod import called
from reading import AGAIN, DONE, verdict

import moorage

STEPS = 30


def post(key):
    found = AGAIN
    while found != DONE:
        found = verdict(key, called("post" if found == AGAIN else "is_there", key))
    return key


def done(key):
    while True:
        try:
            return moorage.step("post", post, key)
        except moorage.OutcomeUnknown:
            continue


def agent(items, ctx):
    run = moorage.text_of(items)
    for n in range(STEPS):
        done(f"{run}-{n}")
        yield f"{n} "


if __name__ == "__main__":
    moorage.HostedAgent(agent=agent).serve()
