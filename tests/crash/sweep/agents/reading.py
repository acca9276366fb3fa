"""What an agent makes of what it is told of an effect: it is done, to be looked for, or to be done again. Pure; models read so too."""

FOUND, MISSING, POSTED = "found", "missing", "posted"
DONE, LOOK, AGAIN = "done", "look", "again"


def verdict(key: str, told: str) -> str:
    """Of the effect `key`, by a result of the tool that makes it or of the one that looks."""
    if f"{POSTED} {key}" in told or f"{FOUND} {key}" in told:
        return DONE
    if f"{MISSING} {key}" in told:
        return AGAIN
    if "already_done_in_earlier_attempt" in told and key not in told:
        return AGAIN  # something else of this tool: this one is meant
    return LOOK
