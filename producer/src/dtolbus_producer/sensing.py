"""What is known of each sample's sensor: what the board told, and what the codes tell. Pure."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Status = NDArray[np.int64]


def merged(told: Mapping[str, Status], derived: Mapping[str, Status]) -> dict[str, Status]:
    """Return the SensorStatus by channel: what the board told where that is not OK, else what the codes tell."""
    both = {name: np.where(told[name], told[name], derived[name]) for name in told if name in derived}
    return {**told, **derived, **both}
