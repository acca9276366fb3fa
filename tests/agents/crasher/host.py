"""Crashes as it is told: `crash`, `hang`, `raise`, `fork`, `fill`, `memory`, `stubborn`; else answers `ok`."""

import os
import signal
import sys
import time

from moorage import HostedAgent, text_of


def crasher(items, ctx):
    word = text_of(items).split()[0] if text_of(items) else ""
    yield "began "
    if word == "crash":
        print("about to crash", file=sys.stderr, flush=True)
        time.sleep(0.3)  # what it has said is on its way: another thread writes it
        os.kill(os.getpid(), signal.SIGKILL)
    elif word == "raise":
        raise ValueError("told to raise")
    elif word == "stubborn":
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        time.sleep(3600)
    elif word == "fork":
        made = 0
        try:
            while True:
                if os.fork() == 0:
                    time.sleep(3600)
                made += 1
        except OSError as error:
            yield f"stopped after {made} forks: {error.strerror}"
        return
    elif word == "fill":
        with open(ctx.workspace / "big", "wb") as file:
            for _ in range(4096):
                file.write(b"x" * 1_048_576)
                file.flush()
    elif word == "memory":
        held = [bytearray(b"x" * 16_777_216) for _ in range(1024)]
        yield str(len(held))
    yield "ok"


HostedAgent(agent=crasher).serve()
