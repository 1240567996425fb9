"""The files of `deploy/systemd`, read as systemd reads them."""

import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path

import click

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
INSTALLED = "/opt/dtolbus/.venv/bin"
KINDS = ("parquet", "sqlite", "postgres", "csv", "jsonl")
UNITS = {
    "dtolbus-up.service": "dtolbus-up.service",
    "dtolbus-producer.service": "dtolbus-producer.service",
    "dtolbus-gateway.service": "dtolbus-gateway.service",
    **{f"dtolbus-worker@{kind}.service": "dtolbus-worker@.service" for kind in KINDS},
}
"""Each unit that can be started, with its file."""
DROP_INS = {
    "usb": ("dtolbus-up.service", "dtolbus-producer.service"),
    "lan": ("dtolbus-up.service", "dtolbus-gateway.service"),
    "metrics": ("dtolbus-producer.service",),
    "data": tuple(UNITS),
    "key": tuple(f"dtolbus-worker@{kind}.service" for kind in KINDS),
    "dsn": ("dtolbus-up.service", "dtolbus-worker@postgres.service"),
}
"""Each drop-in, with the units that it is for."""


def settings(file: Path, unit: str) -> list[tuple[str, str]]:
    """Return keys and values of a unit file in their order; a key may stand in it several times."""
    instance = unit.rpartition(".")[0].partition("@")[2]
    lines = [line for line in file.read_text().splitlines() if line and line[0] not in "#;["]
    pairs = [line.partition("=") for line in lines]
    return [(key, value.replace("%i", instance)) for key, _, value in pairs]


def values(file: Path, unit: str, key: str) -> list[str]:
    return [value for name, value in settings(file, unit) if name == key]


def environment_file(path: Path) -> dict[str, str]:
    """Return what the lines set, those that are examples behind a `#` too."""
    return dict(re.findall(r"^#?(DTOLBUS_\w+)=(.*)$", path.read_text(), re.MULTILINE))


def environment(unit: str) -> dict[str, str]:
    """Return what the unit sets, that and what its environment file and drop-ins could."""
    found = dict(value.split("=", 1) for value in values(FOLDER / UNITS[unit], unit, "Environment"))
    for drop_in, fits in DROP_INS.items():
        if unit in fits:
            file = FOLDER / "drop-ins" / f"{drop_in}.conf"
            found |= dict(value.split("=", 1) for value in values(file, unit, "Environment"))
    for named in values(FOLDER / UNITS[unit], unit, "EnvironmentFile"):
        shipped = FOLDER / "env" / Path(named).name
        if shipped.exists():
            found |= environment_file(shipped)
    return found


def command_line(unit: str) -> list[str]:
    (line,) = values(FOLDER / UNITS[unit], unit, "ExecStart")
    return line.split()


def called(words: Sequence[str]) -> tuple[click.Command, list[str]]:
    """Return the command of a command line, and what is left of that. Raises LookupError where there is none."""
    name = Path(words[0]).name
    (script,) = entry_points(group="console_scripts", name=name)
    module, _, attribute = script.load().args[0].partition(":")
    command, rest = getattr(importlib.import_module(module), attribute), list(words[1:])
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), rest[0])
        if found is None:
            raise LookupError(f"{name} has no command {rest[0]!r}")
        command, rest = found, rest[1:]
    return command, rest


def faults(words: Sequence[str], given: Mapping[str, str]) -> Iterator[str]:
    """Yield what the command line, and the environment, have that the command does not take."""
    command, rest = called(words)
    try:
        parsed, left, _ = command.make_parser(click.Context(command)).parse_args(rest)
    except click.UsageError as error:
        yield error.format_message()
        return
    yield from (f"{word!r} is nothing that it takes" for word in left)
    options = {str(option.envvar): option for option in command.params if option.envvar}
    for name, value in given.items():
        if name not in options and f"${{{name}}}" not in words:
            yield f"no option is {name}"
        elif name in options:
            try:
                options[name].type.convert(value, options[name], None)
            except click.BadParameter as error:
                yield f"{name}={value}: {error.format_message()}"
    for option in command.params:
        if option.required and not isinstance(parsed.get(option.name or ""), str) and option.envvar not in given:
            yield f"{option.name} is missing"
