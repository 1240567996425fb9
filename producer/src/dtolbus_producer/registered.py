"""The sinks that registered in a data folder, as `dtolbus up --catch-up` runs them again."""

import logging
import socket
from pathlib import Path
from typing import Any

from dtolbus.dsn import TLS_OPTIONS
from dtolbus.embedded import is_embedded
from dtolbus.errors import DtolbusError, UsageError
from dtolbus.records import utc_from_ns
from dtolbus.registrations import LONGEST_INSTANT, SINCE_OPTION, SINKS_FOLDER, Registration, usable_registration
from dtolbus_producer.journalfacts import journal_of
from dtolbus_producer.postgres_embedded import EMBEDDED
from dtolbus_producer.sinkconfig import SINK_KINDS, SinkConfig
from dtolbus_producer.sinkplaces import default_place

log = logging.getLogger(__name__)

_OTHERWISE = "name those to run with --sinks a,b,… or --config"
_BY_SOCKET = "postgresql://%2F"


def registered_sinks(data: Path, dsn: str | None) -> tuple[SinkConfig, ...]:
    """Return them as they were run; those of other machines are left out, which is logged.

    Raises UsageError where there is no journal, no sink that can run here, or a database of which nothing is known.
    """
    journal_of(data)
    found, faults = [], []
    for path in sorted((data / SINKS_FOLDER).glob("[!.]*.json")):
        try:
            sink = usable_registration(path)
            if _is_here(sink, data):
                found.append(_config(sink, data.absolute(), dsn))
        except (DtolbusError, OSError) as error:
            faults.append(str(error))
    if not found:
        raise UsageError("; ".join(faults) or f"no sink of this machine has registered in {data}: {_OTHERWISE}")
    for fault in faults:
        log.warning("sink left out", extra={"cause": fault})
    return tuple(found)


def _is_here(sink: Registration, data: Path) -> bool:
    why = ""
    if sink.sink not in SINK_KINDS:
        why = f"{sink.sink} is no kind of sink that `dtolbus up` runs"
    elif sink.options.get("host", socket.gethostname()) != socket.gethostname() and not _path(sink, data).exists():
        why = f"it runs on {sink.options['host']}"
    if why:
        log.warning("sink left out", extra={"sink": sink.name, "place": sink.place, "cause": why})
    return not why


def _path(sink: Registration, data: Path) -> Path:
    """Return where the sink's files are: within this folder, if their old place is gone and the folder was moved."""
    if sink.sink == "postgres":
        return data / "postgres" / "PG_VERSION" if sink.place.startswith(_BY_SOCKET) else data
    old, here = Path(sink.place), data / Path(sink.place).name
    return here if not old.exists() and here.exists() else old


def _config(sink: Registration, data: Path, dsn: str | None) -> SinkConfig:
    options: dict[str, Any] = {}
    since = sink.options.get(SINCE_OPTION, "")
    if since.isdecimal():
        options["since"] = utc_from_ns(int(since[:LONGEST_INSTANT])).isoformat()
    if sink.sink == "parquet":
        options |= {key: sink.options[key] for key in ("layout", "values") if key in sink.options}
    if sink.sink == "postgres":
        dsn = dsn or _known_dsn(sink, data)
        options["schema"] = sink.options.get("schema", "public")
        options |= {key: sink.options[key] for key in TLS_OPTIONS if key in sink.options}
    return SinkConfig(
        kind=sink.sink,  # type: ignore[arg-type]  # looked at before
        name=sink.name,
        blocks=sink.options.get("blocks"),  # type: ignore[arg-type]  # the config's check looks at it
        dsn=dsn if sink.sink == "postgres" else None,
        path=_own_path(sink, data),
        topics=sink.topics or None,
        options=options,
    )


def _own_path(sink: Registration, data: Path) -> str | None:
    """Return where its files are; None where a sink of that name has them."""
    if sink.sink == "postgres":
        return None
    path = _path(sink, data)
    return None if path == data / default_place(sink.sink, sink.name) else str(path)


def _known_dsn(sink: Registration, data: Path) -> str:
    if is_embedded(sink, data):
        return EMBEDDED
    raise UsageError(
        f"the sink {sink.name!r} stores into {sink.place}, of which no user and no password is kept: give its --dsn, "
        f"better in DTOLBUS_DSN, or {_OTHERWISE}"
    )
