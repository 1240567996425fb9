"""What `read_parquet` gives."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtolbus import extras
from dtolbus.records import Gap, RunInfo


@dataclass(frozen=True, eq=False)
class ParquetSamples:
    """The samples of one run, or of a part of it, whatever the layout that they were read from."""

    run: RunInfo
    """The run header: device, task, calibration, metadata."""
    channels: tuple[str, ...]
    units: tuple[str | None, ...]
    """Of each channel."""
    data: NDArray[np.float64]
    """Samples in engineering units, shape (channels, samples); NaN where a sensor or a whole block failed.

    Bit for bit what `block.data` was; of a folder with `--values float32` the nearest float32.
    """
    sample_index: NDArray[np.int64]
    """Each sample's number in its run, shape (samples,): where it jumps, samples are missing."""
    t_utc: NDArray[np.datetime64]
    """UTC instant of each sample, `datetime64[ns]`, shape (samples,)."""
    status: Mapping[str, NDArray[np.int64]]
    """For each channel that has any: a SensorStatus for each sample, shape (samples,)."""
    gaps: tuple[Gap, ...]
    """What is missing within: what the bus could not get any more, and what never reached the journal."""

    def to_arrow(self) -> Any:
        """Return a `pyarrow.Table`: sample_index, t_utc, a column for each channel, `<channel>_status` where any is.

        A channel's unit is in its field's metadata (`unit`). Without copying the values.
        """
        return extras.load("dtolbus.parquet.engine", package="pyarrow", extra="dtolbus[parquet]").table_of(self)
