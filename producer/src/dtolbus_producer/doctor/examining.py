"""All the checks of `dtolbus doctor`, one after another."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from dtolbus.dsn import TLS_OPTIONS, dsn_with
from dtolbus.errors import CannotStartError
from dtolbus_producer import checking
from dtolbus_producer.addresses import bind_address
from dtolbus_producer.boards.finding import find_boards
from dtolbus_producer.checking.report import Report
from dtolbus_producer.columns import columns
from dtolbus_producer.config import Config
from dtolbus_producer.doctor.clocks import examine_clocks
from dtolbus_producer.doctor.database import examine_database
from dtolbus_producer.doctor.disk import examine_folder, room_left
from dtolbus_producer.doctor.finding import Finding
from dtolbus_producer.doctor.folder import examine_recordings, is_up_running
from dtolbus_producer.doctor.keys import examine_keys
from dtolbus_producer.doctor.memory import examine_memory
from dtolbus_producer.doctor.ports import examine_port
from dtolbus_producer.doctor.power import examine_power
from dtolbus_producer.doctor.software import boards, examine_software
from dtolbus_producer.outside import registered_outside
from dtolbus_producer.ports import host_problem
from dtolbus_producer.postgres_embedded import EMBEDDED

_ELSEWHERE = "see `dtolbus sinks`; if that place is another folder's, `dtolbus sinks forget` frees the name here"


def examine(config: Config) -> list[Finding]:
    """Return what was found on this machine for this configuration."""
    data = Path(config.data).absolute()
    is_running = is_up_running(data)
    report = checking.look(config)
    return [
        *examine_software(sink.kind for sink in config.sinks),
        *boards(find_boards(), {device.board_kind for device in config.devices}),
        *_devices(report, is_running),
        *examine_clocks(),
        *examine_folder(data, sum(disk.bytes_s for disk in report.disks)),
        *_rooms(report),
        examine_memory(),
        *examine_power(),
        *_ports(config, is_running),
        examine_keys(data, config.gateway),
        *(examine_database(dsn) for dsn in _databases(config)),
        *examine_recordings(data, is_running),
        *(Finding(f"sink {name}", "warning", what, _ELSEWHERE) for name, what in registered_outside(config, data)),
    ]


def as_text(findings: list[Finding]) -> list[str]:
    """Return the findings for people: each a line, and below it what to do."""
    lines = columns([(finding.name, finding.state, finding.what) for finding in findings])
    told: list[str] = []
    for line, finding in zip(lines, findings, strict=True):
        told += [line, *([f"    → {finding.todo}"] if finding.todo else [])]
    counts = {state: sum(finding.state == state for finding in findings) for state in ("problem", "warning")}
    return [*told, f"{_counted(counts['problem'], 'problem')}, {_counted(counts['warning'], 'warning')}"]


def as_json(findings: list[Finding]) -> str:
    """Return the findings for machines."""
    return msgspec.json.format(msgspec.json.encode(findings), indent=2).decode()


def _counted(count: int, what: str) -> str:
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"


def _devices(report: Report, is_running: bool) -> Iterator[Finding]:
    for device in report.devices:
        name = f"device {device.name}"
        if device.problem is None:
            yield Finding(name, "ok", f"{device.board}: can be opened")
        elif is_running:
            yield Finding(name, "ok", f"{device.board}: not tried while the `dtolbus up` of this folder has it")
        else:
            yield Finding(name, "problem", device.problem, device.todo)


def _rooms(report: Report) -> Iterator[Finding]:
    for disk in report.disks:
        yield room_left(disk.free_bytes, disk.kept_free_bytes, disk.hours_left)


def _ports(config: Config, is_running: bool) -> Iterator[Finding]:
    served = config.gateway
    try:
        host = bind_address(served.host)
        wrong = host_problem(host)
    except CannotStartError as error:
        wrong = str(error)
    if wrong is not None:
        yield Finding("gateway", "problem", f"host = {served.host!r}", wrong.partition(": ")[2])
        return
    yield examine_port("live records", "--pub-port", host, served.pub_port, is_running)
    yield examine_port("catch-up", "--catchup-port", host, served.catchup_port, is_running)


def _databases(config: Config) -> list[str]:
    return list(
        dict.fromkeys(
            dsn_with(sink.dsn, {name: str(sink.options[name]) for name in TLS_OPTIONS if name in sink.options})
            for sink in config.sinks
            if sink.dsn and sink.dsn != EMBEDDED
        )
    )
