"""`python -m dtolbus_producer producer|gateway|up …`: the commands of this distribution by their name."""

import sys

import click

from dtolbus_producer.cli import gateway, producer, up

_COMMANDS = {"producer": producer, "gateway": gateway, "up": up}

name = sys.argv[1] if len(sys.argv) > 1 else ""
if name not in _COMMANDS:
    click.echo(f"dtolbus_producer: {name!r} is no command; there are {', '.join(_COMMANDS)}", err=True)
    sys.exit(2)
_COMMANDS[name].main(sys.argv[2:], prog_name=name if name == "up" else f"dtolbus-{name}")
