"""What `dtolbus check` tells: one tree, for people by `text`, for machines as JSON."""

from typing import Any

import msgspec

from dtolbus.records import Channel


class TaskReport(msgspec.Struct, frozen=True, kw_only=True):
    """A task as the board will run it."""

    name: str
    kind: str
    board: str
    rate_asked_hz: float | None
    rate_hz: float
    """As read back from the board."""
    speed: float | None
    """How much faster than that its samples come; None: as fast as the journal takes them."""
    block_samples: int
    samples: int | None
    """After so many samples a channel it ends by itself; None: never."""
    journal_bytes_s: float
    """At that speed; where that is not known, at the rate: the least."""
    channels: tuple[Channel, ...]
    resolutions: tuple[float | None, ...]
    """Of each channel: by how much its value changes from one code to the next, in its unit; None: not known."""


class DeviceReport(msgspec.Struct, frozen=True, kw_only=True):
    """A device and its tasks; where its board is not to be had, none."""

    name: str
    board: str
    tasks: tuple[TaskReport, ...] = ()
    problem: str | None = None
    todo: str = ""


class PlaceReport(msgspec.Struct, frozen=True, kw_only=True):
    """Where something is stored, how fast it grows, and how long its disk lasts."""

    what: str
    """`journal`, or the sink's name."""
    kind: str
    place: str
    bytes_s: float
    """The journal's is exact but for a few bytes; a sink's is rough."""
    disk: str | None
    """Folder that stands for the disk; None: not on a disk of this machine."""
    hours_left: float | None
    """Until its disk is full, with everything that is written there; None: not known, or never."""


class DiskReport(msgspec.Struct, frozen=True, kw_only=True):
    """A disk that is written to."""

    disk: str
    free_bytes: int
    kept_free_bytes: int
    """`[journal] min_free`: what is to stay free."""
    bytes_s: float
    hours_left: float | None
    most_by: str | None = None
    """Who of those that write there writes most: `journal`, or a sink's name."""


class PortReport(msgspec.Struct, frozen=True, kw_only=True):
    """A port of the gateway; 0 is any free one."""

    use: str
    port: int
    problem: str | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything."""

    devices: tuple[DeviceReport, ...]
    data: str
    places: tuple[PlaceReport, ...]
    disks: tuple[DiskReport, ...]
    journal_max_bytes: int | None
    host: str
    ports: tuple[PortReport, ...]
    run: dict[str, Any]
    problems: tuple[str, ...]
    """What keeps it from starting."""
    is_wrong: bool = False
    """Whether the configuration is what keeps it, of whatever else does."""
    warnings: tuple[str, ...] = ()
    """What keeps it from nothing, and may not be meant."""
