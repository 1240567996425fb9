"""The report of `dtolbus check` for people. Pure."""

from collections.abc import Iterator

from dtolbus.channels import Channel
from dtolbus.units.conversion import Bridge, Conversion, Lookup, Polynomial, Rtd, Thermocouple
from dtolbus_producer.checking.report import DeviceReport, DiskReport, PlaceReport, Report, TaskReport
from dtolbus_producer.checking.spans import measured_span
from dtolbus_producer.columns import columns
from dtolbus_producer.configkeys import shown
from dtolbus_producer.quantities import show_age, show_size

_HOUR_S = 3600
_CENTURY_H = 100 * 365 * 24


def as_text(report: Report) -> list[str]:
    """Return the lines of the report."""
    lines: list[str] = []
    for device in report.devices:
        lines += _device(device)
    lines += ["where it goes", *(f"  {line}" for line in columns([_PLACE_HEAD, *map(_place, report.places)]))]
    lines += [f"  {_disk(disk)}" for disk in report.disks]
    lines += _limit(report)
    lines += ["bus", *(f"  {line}" for line in _bus(report))]
    run = ", ".join(f"{key} = {shown(value)}" for key, value in report.run.items())
    lines.append(f"run metadata: {run or 'none ([run] in the config, or --meta key=value)'}")
    lines += ["look at these", *(f"  {warning}" for warning in report.warnings)] if report.warnings else []
    return lines


_PLACE_HEAD = ("", "a second", "a day", "disk full after", "place")
_CHANNEL_HEAD = ("channel", "input", "range", "gain", "measures", "one code", "sensor", "conversion")


def _device(device: DeviceReport) -> Iterator[str]:
    yield f"device {device.name}: {device.board}"
    if device.problem is not None:
        yield f"  not to be had: {device.problem}"
    for task in device.tasks:
        yield f"  task {task.name} ({task.kind}) on {task.board}"
        yield f"    {_rate(task)}"
        for line in columns([_CHANNEL_HEAD, *map(_channel, task.channels, task.resolutions)]):
            yield f"    {line}"


def _rate(task: TaskReport) -> str:
    is_other = task.rate_asked_hz is not None and task.rate_asked_hz != task.rate_hz
    asked = f" (asked: {task.rate_asked_hz:.10g} Hz)" if is_other else ""
    what = "poll" if task.kind == "readings" else "sample"
    parts = [f"{task.rate_hz:.10g} Hz a channel{asked}"]
    if task.speed != 1:
        parts.append("as fast as the journal takes it" if task.speed is None else f"{task.speed:g} times as fast")
    if task.kind == "blocks":
        parts.append(f"blocks of {_counted(task.block_samples, 'sample')} ({task.block_samples / task.rate_hz:.4g} s)")
    parts.append(f"{show_size(round(task.journal_bytes_s))} a second into the journal")
    parts.append("until it is stopped" if task.samples is None else f"ends after {_counted(task.samples, what)}")
    return "; ".join(parts)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _channel(channel: Channel, step: float | None) -> tuple[str, ...]:
    limits = measured_span(channel)
    unit = channel.unit or ""
    is_of_board = channel.range is not None and (unit == "V" or channel.range != limits)
    return (
        channel.name,
        "" if channel.physical is None else str(channel.physical),
        f"{channel.range[0]:g} to {channel.range[1]:g} V" if is_of_board and channel.range else "",
        "" if channel.range is None else f"{channel.gain:g}",
        unit if limits is None else f"{limits[0]:.6g} to {limits[1]:.6g} {unit}".rstrip(),
        "" if step is None else f"{step:.2g} {unit}".rstrip(),
        channel.sensor or "",
        show_conversion(channel.conversion),
    )


def show_conversion(conversion: Conversion | None) -> str:
    """Return what becomes of a channel's volts."""
    match conversion:
        case Thermocouple(kind, junction):
            at = f"at {junction:g} °C" if not isinstance(junction, str) else f"from {junction}"
            return f"type {kind} (ITS-90), cold junction {at}"
        case Rtd(r0_ohm, excitation_a, curve):
            by = "IEC 60751" if curve is None else "its own curve"
            return f"RTD of {r0_ohm:g} Ω at 0 °C ({by}), {excitation_a:g} A"
        case Bridge():
            gauge = f"gauge factor {conversion.gauge_factor:g}"
            return f"{conversion.configuration} bridge, {gauge}, {conversion.excitation_v:g} V"
        case Lookup(x):
            return f"table of {len(x)} points, {min(x):g} to {max(x):g} V"
        case Polynomial(coefficients):
            return f"polynomial of degree {len(coefficients) - 1}"
    return ""


def _place(place: PlaceReport) -> tuple[str, ...]:
    about = "" if place.kind == "journal" else "about "
    if not place.bytes_s:
        return (place.what, "nothing", "", "", place.place)
    return (
        place.what,
        f"{about}{show_size(round(place.bytes_s))}",
        f"{about}{show_size(round(place.bytes_s * 24 * _HOUR_S))}",
        "not known" if place.hours_left is None else show_hours(place.hours_left),
        place.place,
    )


def _disk(disk: DiskReport) -> str:
    kept = f", {show_size(disk.kept_free_bytes)} of it stay so (min_free)" if disk.kept_free_bytes else ""
    left = "" if disk.hours_left is None else f": enough for {show_hours(disk.hours_left)} of all that goes there"
    left += f", most of it by {disk.most_by}" if disk.most_by and disk.hours_left is not None else ""
    return f"disk {disk.disk}: {show_size(disk.free_bytes)} free{kept}{left}"


def _limit(report: Report) -> list[str]:
    if report.journal_max_bytes is None:
        return []
    most = show_size(report.journal_max_bytes)
    return [f"  beyond {most} (max_size) the journal lets go of what every sink has"]


def _bus(report: Report) -> Iterator[str]:
    for port in report.ports:
        at = f"tcp://{report.host}:{port.port or 'any free port'}"
        yield f"{port.use}: {at}, {'free' if port.problem is None else port.problem}"


def show_hours(hours: float) -> str:
    """Return a time as people read it."""
    return "more than 100 years" if hours > _CENTURY_H else show_age(hours * _HOUR_S)
