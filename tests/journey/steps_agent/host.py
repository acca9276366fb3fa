"""Does what its input says, a step a line; every effect is a line of `effects.log` in the workspace.

do KEY   later KEY   both A | B   threads A | B   fail KEY   now KEY (with the time)   nested KEY
wait (the first attempt waits to be killed)   hang KEY (the same, within the step, its effect made)
"""

import asyncio
import time

import moorage
from moorage import HostedAgent, text_of


class Work:
    def __init__(self, ctx):
        self.ctx = ctx
        self.file = ctx.workspace / "effects.log"

    def note(self, key, *more):
        with self.file.open("a") as file:
            file.write(f"{key}\n")
        return {"key": key, "line": len(self.file.read_text().splitlines())}

    async def note_later(self, key):
        await asyncio.sleep(0)
        return self.note(key)

    def wait(self):
        if self.ctx.attempt == 1:
            (self.ctx.workspace / "waiting").write_text("x")
            time.sleep(600)

    def hang(self, key):
        found = self.note(key)
        self.wait()
        return found

    def fail(self, key):
        self.note(key)
        raise LookupError(f"no {key}")

    async def line(self, what, rest):
        match what:
            case "do":
                return moorage.step("do", self.note, rest)
            case "later":
                return await moorage.step("later", self.note_later, rest)
            case "both":
                return await asyncio.gather(*(moorage.step("both", self.note_later, key) for key in rest.split(" | ")))
            case "threads":
                keys = rest.split(" | ")
                return await asyncio.gather(
                    *(asyncio.to_thread(moorage.step, "thread", self.note, key) for key in keys)
                )
            case "now":
                return moorage.step("now", self.note, rest, time.time())
            case "nested":
                return moorage.step("outer", lambda: moorage.step("inner", self.note, rest))
            case "wait":
                return self.wait()
            case _:
                return moorage.step(what, getattr(self, what), rest)


async def agent(items, ctx):
    work = Work(ctx)
    for line in text_of(items).splitlines():
        what, _, rest = line.partition(" ")
        try:
            yield f"{await work.line(what, rest)}\n"
        except moorage.AlreadyDone as earlier:
            yield f"already {earlier.result} of {earlier.arguments['args'][0]}\n"
        except moorage.MoorageError as fault:
            yield f"{type(fault).__name__} {fault}\n"


if __name__ == "__main__":
    HostedAgent(agent=agent).serve()
