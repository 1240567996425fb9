"""`manifest.json` of a run: what was deleted from its journal, and what it was.

It is written, durably, before a segment loses its name. A segment that is named here and still there, because the
deleting process was killed between the two, is readable until it is deleted again.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from dtolbus import files
from dtolbus.errors import RawFormatError
from dtolbus.jsonreading import read_json
from dtolbus.numbers import Count
from dtolbus.records import Gap

MANIFEST_FILE = "manifest.json"
DELETED = "deleted from the journal"
"""How the cause of every gap begins that comes from a deletion."""
MISSING = "missing in the journal"


class DeletedSegment(msgspec.Struct, frozen=True, kw_only=True):
    """A segment that is gone, or about to go."""

    first_index: Count
    end_index: Count
    """Its records were [first_index, end_index)."""
    first_sample: Count
    end_sample: Count
    """Its samples (of readings: polls) were [first_sample, end_sample)."""
    bytes: Count
    xxh3_64: str
    """Of all bytes of the file, 16 hex digits."""
    cause: str
    """Why it went; what a gap that comes of it says after `deleted from the journal: `."""
    deleted_utc: str
    """When, ISO 8601."""
    lost_samples: Count = 0
    """Samples of each channel that, by the segment's events, never reached the journal."""
    without_samples: Count = 0
    """How many of its blocks held no samples, and so have no rows where samples are stored."""


class Manifest(msgspec.Struct, frozen=True):
    """The deleted segments of a run, in order."""

    segments: tuple[DeletedSegment, ...] = ()

    @property
    def end(self) -> int:
        """One past the last record that is named here."""
        return max((segment.end_index for segment in self.segments), default=0)

    def having(self, added: DeletedSegment) -> "Manifest":
        """Return the manifest with a segment more; one that is named already stays as it was first named."""
        if any(segment.first_index == added.first_index for segment in self.segments):
            return self
        return Manifest(tuple(sorted((*self.segments, added), key=lambda segment: segment.first_index)))

    def gaps(self, from_index: int, to_index: int) -> Iterable[Gap]:
        """Yield what is to be said of [from_index, to_index), which is gone: neighbours of one cause as one Gap.

        The samples are told where the gap begins or ends with a segment.
        """
        position, held = from_index, None
        for segment in self.segments:
            start, end = max(segment.first_index, position), min(segment.end_index, to_index)
            if start >= end:
                continue
            found = Gap(
                start,
                end,
                f"{DELETED}: {segment.cause}",
                segment.first_sample if start == segment.first_index else None,
                segment.end_sample if end == segment.end_index else None,
            )
            if held is not None and (held.cause, held.to_index) == (found.cause, start):
                held = Gap(held.from_index, end, held.cause, held.first_sample, found.end_sample)
            else:
                if held is not None:
                    yield held
                if start > position:
                    yield Gap(position, start, MISSING)
                held = found
            position = end
        if held is not None:
            yield held
        if position < to_index:
            yield Gap(position, to_index, MISSING)


def read_manifest(run: Path) -> Manifest:
    """Return the manifest of a run's folder, empty where there is none. Raises RawFormatError, OSError."""
    path = run / MANIFEST_FILE
    try:
        return read_json(files.read(path), Manifest)
    except FileNotFoundError:
        return Manifest()
    except ValueError as error:
        raise RawFormatError(f"{path} is damaged: it does not say what was deleted") from error


def write_manifest(run: Path, manifest: Manifest) -> None:
    """Replace the manifest of a run's folder durably. Raises OSError."""
    files.replace(run / MANIFEST_FILE, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
