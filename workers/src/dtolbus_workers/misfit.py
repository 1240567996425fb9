"""What the header of a run says once for all its blocks, and a block that says otherwise. Pure."""

import numpy as np

from dtolbus.parquet.footer import CODE_TYPES
from dtolbus.records import DaqBlock, RunInfo
from dtolbus.runblocks import run_of

MISFIT = "not of this run"
"""How the reason begins where a block cannot be stored in the wide layout, whose rows leave to the run what is its."""


class Described:
    """What a run says of its blocks, worked out once for many of them."""

    def __init__(self, run: RunInfo) -> None:
        self._run = self._equal = run
        self._names = run.channel_names
        self._units = run.units
        self._dtype = np.dtype(run.dtype) if run.dtype in CODE_TYPES else None
        self._is_clear = len(self._units) == len(self._names)

    def misfit(self, block: DaqBlock) -> str | None:
        """Return why the run's columns cannot hold a block, or None."""
        if not self._is_made_for(block) and (reason := self._other(block)):
            return reason
        if any(name not in self._units for name in block.sensor_status):
            return f"{MISFIT}: it has the status of other channels"
        return None

    def _is_made_for(self, block: DaqBlock) -> bool:
        """Return whether the block was made for this run, so that nobody need look; False where that is not known."""
        run = run_of(block)
        if run is not self._equal and run == self._run:
            self._equal = run  # the next is most likely this one
        return self._is_clear and run is self._equal

    def _other(self, block: DaqBlock) -> str | None:
        run, units = self._run, self._units
        if (block.run_id, block.device, block.task) != (run.run_id, run.device, run.task):
            return f"{MISFIT}: it says {block.device}/{block.task} {block.run_id}"
        if block.channels != self._names or not self._is_clear:
            return f"{MISFIT}: its channels are {', '.join(block.channels):.100}"
        if block.units != units and {name: block.units.get(name) for name in units} != units:
            return f"{MISFIT}: its units are others"
        return None

    def has_codes(self, block: DaqBlock) -> bool:
        """Return whether the block's values are those of its codes, of the run's type, by the run's calibration."""
        codes, channels = block.raw_codes, self._run.channels
        if codes is None or self._dtype is None or codes.dtype != self._dtype or block.calibration != channels:
            return False
        return not block.has_own_data or np.array_equal(block.data.view(np.int64), block.scaled().view(np.int64))
