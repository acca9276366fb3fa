"""Own functions as steps, for a framework that is called by a function: what must not run is told as a result, as the adapters do."""

import functools
import json

import tools

import moorage


def stepped(tool):
    """The tool as a step: a model reads what became of it."""

    @functools.wraps(tool)
    async def made(key: str, note: str) -> str:
        try:
            return await moorage.step(tool.__name__, tool, key, note)
        except moorage.OutcomeUnknown as lost:
            return json.dumps({"error": "outcome_unknown", "message": str(lost)})
        except moorage.AlreadyDone as earlier:
            told = {"error": "already_done_in_earlier_attempt", "call": earlier.arguments, "result": earlier.result}
            return json.dumps(told)

    return made


ALL = [stepped(tool) for tool in tools.ALL]
