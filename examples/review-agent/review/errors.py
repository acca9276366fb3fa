"""Everything the engine raises on purpose.

ReviewError            the message is written for the person who asked
├── NotFound           a package, release, repository or revision that does not exist
├── Unreachable        a host that did not answer; `.reason` is one short phrase
├── Hostile            an archive or tree that tries something; never unpacked further
├── Refused            a tool or a model that answered with an error; the message is its own
├── TooLarge           over one of the caps in `budget.Limits`
├── OutOfTime          the review's deadline passed
└── Cancelled          the caller left
"""


class ReviewError(Exception):
    """A review that cannot go on; `str(error)` says why and what to do."""


class NotFound(ReviewError):
    """What was named is not there."""


class Unreachable(ReviewError):
    """A host that could not be talked to. `reason` is stable text: the same fault gives the same words."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where} is not reachable ({reason})")
        self.where = where
        self.reason = reason


class Hostile(ReviewError):
    """An archive that would write outside its folder, or hold what no release holds."""


class Refused(ReviewError):
    """A tool or a model that said no. The text is the same on every attempt: the platform recorded that answer as well."""


class TooLarge(ReviewError):
    """More bytes or files than a review takes."""


class OutOfTime(ReviewError):
    """The deadline of the whole review passed."""


class Cancelled(ReviewError):
    """The caller no longer wants the answer."""
