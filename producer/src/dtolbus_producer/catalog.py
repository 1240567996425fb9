"""The runs of a journal as they appear: a run that is known costs nothing more, however many there are."""

import logging
import time
from pathlib import Path

from dtolbus.errors import RawFormatError
from dtolbus.runs import RunFolder, placed_run

log = logging.getLogger(__name__)

_SETTLED_S = 3.0
"""A folder that changed less than this ago is listed again: file systems stamp changes in steps of up to 2 s."""


class Catalog:
    """Finds the runs of a journal; `discover` gives each once."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._listed: dict[Path, tuple[int, tuple[str, ...]]] = {}
        self._known: dict[Path, set[str]] = {}
        self._done: dict[Path, tuple[str, ...]] = {}
        """By stream: a listing, all of whose runs are known."""
        self._gone: list[Path] = []
        self._logged: set[Path] = set()

    def discover(self) -> list[RunFolder]:
        """Return the runs that were not given before, oldest first.

        A folder without a `run.json` is looked at again the next time, and one that cannot be read now, for want of
        descriptors, say. What is not readable is logged once.
        """
        found: list[RunFolder] = []
        streams = set()
        for device in self._entries(self._journal):
            if device.startswith("."):  # no device's: the journal's own
                continue
            for task in self._entries(self._journal / device):
                streams.add(stream := self._journal / device / task)
                found += self._new_runs(stream)
        for stream in self._known.keys() - streams:
            self._keep(stream, set())
        return sorted(found, key=lambda folder: folder.info.run_id)

    def gone(self) -> list[Path]:
        """Return the folders that went since this was last asked; one that comes back is given again."""
        gone, self._gone = self._gone, []
        return gone

    def _keep(self, stream: Path, names: set[str]) -> None:
        """Forget the folders of the stream that are not there any more."""
        known = self._known[stream]
        self._done.pop(stream, None)
        self._gone += [stream / name for name in known - names]
        known &= names

    def _new_runs(self, stream: Path) -> list[RunFolder]:
        known = self._known.setdefault(stream, set())
        listed = self._entries(stream)
        if listed and listed is self._done.get(stream):
            return []
        names = set(listed)
        self._keep(stream, names)
        found = []
        for name in names - known:
            try:
                found.append(placed_run(stream / name))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                self._log(stream / name, error)
                continue
            except RawFormatError as error:
                self._log(stream / name, error)
            known.add(name)
        if names == known:
            self._done[stream] = listed
        return found

    def _entries(self, folder: Path) -> tuple[str, ...]:
        """Return the names in the folder, listed again only when it changed; those known where it cannot be listed."""
        try:
            changed_ns = folder.stat().st_mtime_ns
            listed_ns, names = self._listed.get(folder, (-1, ()))
            if changed_ns == listed_ns:
                return names
            names = tuple(entry.name for entry in folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError as error:
            self._log(folder, error)
            return self._listed.get(folder, (-1, ()))[1]
        is_settled = abs(time.time_ns() - changed_ns) > _SETTLED_S * 1e9
        self._listed[folder] = (changed_ns if is_settled else -1, names)
        return names

    def _log(self, path: Path, error: Exception) -> None:
        if path not in self._logged:
            self._logged.add(path)
            log.warning("run cannot be read", extra={"run": str(path), "cause": str(error)})
