"""What the producer's tests share: a device run to its end, and what its journal then holds."""

import threading
from pathlib import Path
from typing import Any

from dtolbus.records import DaqBlock, DaqEvent, DaqReading, Gap, Record
from dtolbus.runs import RunFolder, list_runs
from dtolbus_producer.acquisition import acquire
from dtolbus_producer.config import Config, config_from


def config_of(task: dict[str, Any], *, options: dict[str, Any] | None = None, **rest: Any) -> Config:
    """A config of one simulated device `dev` with one task."""
    device = {"name": "dev", "task": [task], "options": {"lateness_ms": 0.0, **(options or {})}}
    device.update(rest.pop("device", {}))
    return config_from({"device": [device], **rest})


def acquire_all(config: Config, data: Path, stop: threading.Event | None = None) -> list[RunFolder]:
    """Acquire the config's only device to its end; return the runs, the oldest first."""
    acquire(config, config.devices[0].name, data, stop or threading.Event())
    return list_runs(data / "journal")


def records_of(run: RunFolder) -> list[Record | Gap]:
    with run:
        return list(run.records(0, run.status().head))


def blocks_of(run: RunFolder) -> list[DaqBlock]:
    return [record for record in records_of(run) if isinstance(record, DaqBlock)]


def readings_of(run: RunFolder) -> list[DaqReading]:
    return [record for record in records_of(run) if isinstance(record, DaqReading)]


def events_of(run: RunFolder) -> list[DaqEvent]:
    return [record for record in records_of(run) if isinstance(record, DaqEvent)]
