"""Looks at boards, disks and ports for `dtolbus check`, and leaves all of them as they are."""

import math
from collections.abc import Iterator
from pathlib import Path

from dtolbus.bounds import check_run
from dtolbus.cli import topic_prefix
from dtolbus.errors import BoardError, CannotStartError, DtolbusError
from dtolbus.records import RunInfo
from dtolbus_producer.addresses import bind_address
from dtolbus_producer.boards import TaskPlan
from dtolbus_producer.boards.guarding import GuardedBoard
from dtolbus_producer.boards.sharing import take
from dtolbus_producer.checking.forecast import Flow, hours_left
from dtolbus_producer.checking.junctions import junction_warnings
from dtolbus_producer.checking.report import (
    DeviceReport,
    DiskReport,
    PlaceReport,
    PortReport,
    Report,
    TaskReport,
)
from dtolbus_producer.checking.spans import measured_span, resolution
from dtolbus_producer.checking.warnings import warnings_of
from dtolbus_producer.config import Config
from dtolbus_producer.conversions import conversion_key
from dtolbus_producer.disks import disk_number, existing, folder_problem, room
from dtolbus_producer.locking import is_locked
from dtolbus_producer.outside import registered_outside
from dtolbus_producer.packages import missing_package
from dtolbus_producer.plan import place_of
from dtolbus_producer.ports import host_problem, port_problem
from dtolbus_producer.postgres_embedded import EMBEDDED
from dtolbus_producer.quota import free_bytes_asked
from dtolbus_producer.stack import LOCK_FILE
from dtolbus_producer.tasks import DeviceConfig, TaskConfig, WrongKeyError

_NO_RUN = "00000000-0000-7000-8000-000000000000"


def look(config: Config) -> Report:
    """Return what `dtolbus up` would run, and what keeps it from starting.

    Raises UsageError for a task whose run header no message could hold.
    """
    data = Path(config.data).absolute()
    problems: list[str] = []
    runs: list[Flow] = []
    taken: dict[str, str] = {}
    devices = tuple(_device(config, device, runs, problems, taken) for device in config.devices)
    for flow in runs:
        check_run(flow.run)
    wrong = [line for flow in runs for line in _without_values(config, flow.run)]
    problems += _folder_problems(data)
    for sink in config.sinks:
        missing = missing_package(sink.kind)
        if missing is not None:
            problems.append(f"sink {sink.name!r}: {missing}")
    places = [*_places(config, data, runs)]
    disks = _disks(config, places, problems)
    return Report(
        devices=devices,
        data=str(data),
        places=tuple(_with_hours(place, disks) for place in places),
        disks=disks,
        journal_max_bytes=config.journal.max_bytes,
        host=config.gateway.host,
        ports=_ports(config, problems),
        run=config.run,
        problems=(*wrong, *problems),
        is_wrong=bool(wrong),
        warnings=(
            *warnings_of(config, devices, places, disks),
            *junction_warnings(devices),
            *(f"the sink {name!r} is {what}" for name, what in registered_outside(config, data)),
        ),
    )


def _device(
    config: Config, device: DeviceConfig, runs: list[Flow], problems: list[str], taken: dict[str, str]
) -> DeviceReport:
    """Open the device's board for a moment and read its tasks back; `taken` has who takes which hardware."""
    tasks: list[TaskReport] = []
    try:
        board = GuardedBoard(device)
        board.open()
        try:
            take(board, device, taken)
            for task in device.tasks:
                plan = _plan(board, task)
                run = _run(config, device, task, plan)
                flow = Flow(run, plan.speed if math.isfinite(plan.speed) else 1.0)
                runs.append(flow)
                tasks.append(_task(task, plan, flow))
        finally:
            board.close()
    except (DtolbusError, WrongKeyError) as error:
        todo = "connect the board, or see `dtolbus boards`" if isinstance(error, BoardError) else ""
        problems.append("; ".join(filter(None, (f"device {device.name!r}: {error}", todo))))
        return DeviceReport(name=device.name, board=device.board, problem=str(error), todo=todo)
    return DeviceReport(name=device.name, board=device.board, tasks=tuple(tasks))


def _without_values(config: Config, run: RunInfo) -> Iterator[str]:
    """Yield the channels whose conversion gives no value at any voltage of their range."""
    (task,) = (task for task in config.device(run.device).tasks if task.name == run.task)
    keys = {channel.name: conversion_key(channel) for channel in task.channel_configs}
    for channel in run.channels:
        span = measured_span(channel)
        if span is not None and math.isnan(span[0]):
            limits = "" if channel.range is None else f" ({channel.range[0]:g} to {channel.range[1]:g} V)"
            what = f"device {run.device!r}, channel {channel.name!r}: no voltage of its range gives a value"
            yield f"{what}: look at its range{limits} or gain, and at its {keys.get(channel.name) or 'conversion'}"


def _plan(board: GuardedBoard, task: TaskConfig) -> TaskPlan:
    if task.kind == "readings":
        return board.readings(task).plan
    source = board.blocks(task)
    source.stop()
    return source.plan


def _run(config: Config, device: DeviceConfig, task: TaskConfig, plan: TaskPlan) -> RunInfo:
    return RunInfo(
        run_id=_NO_RUN,
        device=device.name,
        task=task.name,
        kind=task.kind,
        channels=plan.channels,
        rate_hz=plan.rate_hz,
        started_utc_ns=0,
        started_mono_ns=0,
        dtype=plan.dtype,
        block_samples=plan.block_samples,
        board=plan.board,
        meta={**plan.meta, **config.run},
    )


def _task(task: TaskConfig, plan: TaskPlan, flow: Flow) -> TaskReport:
    return TaskReport(
        name=task.name,
        kind=task.kind,
        board=plan.board,
        rate_asked_hz=task.rate_hz,
        rate_hz=plan.rate_hz,
        speed=plan.speed if math.isfinite(plan.speed) else None,
        block_samples=plan.block_samples,
        samples=task.samples_asked(plan.rate_hz),
        journal_bytes_s=flow.journal_bytes_s,
        channels=plan.channels,
        resolutions=tuple(map(resolution, plan.channels)),
    )


def _folder_problems(data: Path) -> Iterator[str]:
    """Yield why the data folder cannot be written, or is taken."""
    try:
        problem = folder_problem(data)
        if problem is not None:
            yield f"{problem}: choose another with --data"
        elif is_locked(data / LOCK_FILE):
            yield f"{data} has a `dtolbus up` already: stop it, or choose another folder with --data"
    except OSError as error:
        yield f"the folder {data} cannot be used ({error.strerror or error}): choose another with --data"


def _places(config: Config, data: Path, runs: list[Flow]) -> Iterator[PlaceReport]:
    """Yield where everything goes, without the hours."""
    journal = data / "journal"
    yield _place("journal", "journal", str(journal), sum(flow.journal_bytes_s for flow in runs), _disk_of(journal))
    for sink in config.sinks:
        topics = tuple(topic_prefix(topic) for topic in sink.topics or ())
        bytes_s = sum(flow.sink_bytes_s(sink.kind, sink.blocks, topics) for flow in runs)
        is_here = sink.kind != "postgres" or sink.dsn == EMBEDDED
        path = data if sink.kind == "postgres" else Path(place_of(sink, data)).absolute()
        yield _place(sink.name, sink.kind, place_of(sink, data), bytes_s, _disk_of(path) if is_here else None)


def _place(what: str, kind: str, place: str, bytes_s: float, disk: str | None) -> PlaceReport:
    return PlaceReport(what=what, kind=kind, place=place, bytes_s=bytes_s, disk=disk, hours_left=None)


def _disk_of(path: Path) -> str | None:
    """Return the highest folder above the path that is on the same disk; None where it cannot be told."""
    try:
        here = existing(path.absolute())
        number = disk_number(here)
        while here.parent != here and disk_number(here.parent) == number:
            here = here.parent
    except OSError:
        return None
    return str(here)


def _disks(config: Config, places: list[PlaceReport], problems: list[str]) -> tuple[DiskReport, ...]:
    """Return each disk that is written to; the journal's keeps something free."""
    found: list[DiskReport] = []
    for disk in dict.fromkeys(place.disk for place in places if place.disk is not None):
        there = room(Path(disk))
        is_journal = disk == places[0].disk
        kept = free_bytes_asked(config.journal.min_free_bytes, there.total) if is_journal else 0
        there_go = [place for place in places if place.disk == disk]
        bytes_s = sum(place.bytes_s for place in there_go)
        found.append(
            DiskReport(
                disk=disk,
                free_bytes=there.free,
                kept_free_bytes=kept,
                bytes_s=bytes_s,
                hours_left=hours_left(there.free - kept, bytes_s),
                most_by=max(there_go, key=lambda place: place.bytes_s).what if bytes_s else None,
            )
        )
        if there.free <= kept:
            problems.append(f"the disk {disk} is full: make room, or choose another folder with --data")
    return tuple(found)


def _with_hours(place: PlaceReport, disks: tuple[DiskReport, ...]) -> PlaceReport:
    left = next((disk.hours_left for disk in disks if disk.disk == place.disk), None)
    return PlaceReport(
        what=place.what,
        kind=place.kind,
        place=place.place,
        bytes_s=place.bytes_s,
        disk=place.disk,
        hours_left=left if place.bytes_s else None,
    )


def _ports(config: Config, problems: list[str]) -> tuple[PortReport, ...]:
    served = config.gateway
    try:
        address = bind_address(served.host)
        wrong = host_problem(address)
    except CannotStartError as error:
        wrong = str(error)
    if wrong is not None:
        problems.append(f"gateway.host = {served.host!r}: {wrong.partition(': ')[2]}")
        return ()
    found: list[PortReport] = []
    for use, option, port in (
        ("live records", "--pub-port", served.pub_port),
        ("catch-up", "--catchup-port", served.catchup_port),
    ):
        problem = port_problem(address, port)
        found.append(PortReport(use=use, port=port, problem=problem))
        if problem is not None:
            problems.append(f"port {port} is {problem}, or choose another with {option}")
    return tuple(found)
