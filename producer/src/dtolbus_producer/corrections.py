"""What a corrected run says of itself in its `meta`: whence it comes, and what is other there. Pure."""

from typing import Final

from dtolbus.records import RunInfo

FROM: Final = "recalibrated_from"
"""Key: run_id of the run that this one comes from."""
ORIGINAL: Final = "original_run"
"""Key: run_id of the one that was recorded, however often it was corrected since."""
CHANGES: Final = "recalibrated"
"""Key: what was before and what is now, by channel and field."""


def corrected_run(run: RunInfo) -> str | None:
    """Return the run_id of the run that this one is, with another calibration; None of one that was recorded."""
    found = run.meta.get(FROM)
    return found if isinstance(found, str) else None


def original_run(run: RunInfo) -> str:
    """Return the run_id of the run whose codes this one has: the same of all corrections of one recording."""
    found = run.meta.get(ORIGINAL, corrected_run(run))
    return found if isinstance(found, str) else run.run_id
