"""The errors of dtolbus, each named by what its caller can do.

::

    DtolbusError                     exit 1
    ├── UsageError                   exit 2: an option, a config key, a name is wrong: correct it and call again
    ├── CannotStartError             exit 3: a port, a lock, a folder, a database is not to be had: free it, start again
    ├── WireError                    a message that cannot be read: count it, drop it
    ├── RawFormatError               a `.dt-raw` file, or a part of one, that cannot be read
    │   └── MisplacedRunError        a run's folder is not at its own place: a copy; move it out of the journal
    ├── BoardError                   the board refused or is gone
    ├── JournalError                 (producer) the journal cannot be written any more
    │   └── JournalFullError         exit 4: there is no room: make some, start again
    └── DtolSinkError                a sink was used wrongly, or refuses
        ├── DtolSinkWriteError       the outside failed (database away, disk full): try again later
        ├── DtolSinkSchemaError      the record does not fit what the sink holds
        └── DtolSinkDependencyError  an optional package is missing: install the extra it names
"""

_LONGEST = 500


class DtolbusError(Exception):
    """Whatever dtolbus itself finds wrong; the message says what, with the value, and what to do."""

    exit_code = 1


class UsageError(DtolbusError):
    """An option, a config key or an argument is wrong."""

    exit_code = 2


class CannotStartError(DtolbusError):
    """Something that the start needs is not to be had: a port, a lock, a folder, a database."""

    exit_code = 3


class WireError(DtolbusError):
    """A message is malformed, too large, or of another wire version."""

    def __init__(self, what: str) -> None:
        """Keep the beginning: it may be the message's own text, which has no end."""
        super().__init__(what if len(what) <= _LONGEST else f"{what[:_LONGEST]}…")


class RawFormatError(DtolbusError):
    """A `.dt-raw` file is not one, is of another version, or is damaged."""


class MisplacedRunError(RawFormatError):
    """A folder of the journal is not that of the run which its `run.json` names."""

    is_only = False
    """Whether the run's own folder is not there: it was renamed, and is no copy."""


class BoardError(DtolbusError):
    """The board refused what was asked of it, or went away."""


class DtolSinkError(DtolbusError):
    """A sink was used wrongly (written before it was opened), or refuses what it was given."""


class DtolSinkWriteError(DtolSinkError):
    """The outside failed while writing: the database is away, the disk is full."""


class DtolSinkSchemaError(DtolSinkError):
    """A record does not fit the shape that the sink has locked."""


class DtolSinkDependencyError(DtolSinkError):
    """A sink needs an optional package that is not installed."""

    exit_code = 3
