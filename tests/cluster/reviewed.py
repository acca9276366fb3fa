"""What a review must say: facts of the repository that the example brings along, planted there to be found."""

from __future__ import annotations

ASKED = "Review pypi:httpx 0.27.2..0.28.1"
"""Where no package index is in reach it is the sample that is reviewed."""
PLANTED = (
    "this is a review of the built-in sample repository",
    "- **dropped** `python-dateutil>=2.9`",
    "- **added** `tomlkit>=0.13`",
    "`quayside.Harbour.__init__`: parameter `strict` was removed",
    "`quayside.tides.height_at`",
)
