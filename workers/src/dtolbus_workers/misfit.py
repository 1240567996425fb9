"""What the header of a run says once for all its blocks, and a block that says otherwise. Pure."""

from collections.abc import Mapping

import numpy as np

from dtolbus.records import DaqBlock, RunInfo

MISFIT = "not of this run"
"""How the reason begins where a block cannot be stored in the wide layout, whose rows leave to the run what is its."""


def misfit(run: RunInfo, block: DaqBlock, units: Mapping[str, str | None]) -> str | None:
    """Return why the run's columns cannot hold a block, or None; `units` are the run's."""
    if (block.run_id, block.device, block.task) != (run.run_id, run.device, run.task):
        return f"{MISFIT}: it says {block.device}/{block.task} {block.run_id}"
    if block.channels != run.channel_names or len(units) != len(run.channels):
        return f"{MISFIT}: its channels are {', '.join(block.channels):.100}"
    if block.units != units and {name: block.units.get(name) for name in units} != units:
        return f"{MISFIT}: its units are others"
    if any(name not in units for name in block.sensor_status):
        return f"{MISFIT}: it has the status of other channels"
    return None


def carries_codes(run: RunInfo, block: DaqBlock) -> bool:
    """Return whether the block's values are those of its codes, of the run's type, by the run's calibration."""
    if block.raw_codes is None or block.raw_codes.dtype != run.dtype or block.calibration != run.channels:
        return False
    return not block.has_own_data or np.array_equal(block.data.view(np.int64), block.scaled().view(np.int64))
