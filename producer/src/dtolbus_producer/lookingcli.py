"""The command lines `dtolbus check`, `dtolbus boards` and `dtolbus doctor`."""

from pathlib import Path
from typing import Any

import click

from dtolbus.cli import command, option, parse_pairs
from dtolbus.dsn import dsn_options
from dtolbus_producer.cli import what_runs

_json_option = option("--json", "machine", is_flag=True, help="Print JSON.")


@command("check")
@what_runs
@_json_option
def check(meta: tuple[str, ...], machine: bool, **options: Any) -> None:
    """Tell what `dtolbus up` would run with the same options, without starting it or leaving anything behind.

    Each task as its board runs it, bytes a second, how long the disk lasts, where everything goes. Exit 0: it can
    start; 2: the configuration is wrong; 3: a board, a folder, a port or a package is not to be had.
    """
    from dtolbus_producer import checking  # noqa: PLC0415  # numpy is heavy; --help does without
    from dtolbus_producer.plan import UpOptions, resolve  # noqa: PLC0415  # as above

    report = checking.look(resolve(UpOptions(meta=parse_pairs(meta, "--meta"), **options)))
    for line in [checking.as_json(report)] if machine else checking.as_text(report):
        click.echo(line)
    checking.refuse(report)


@command("boards")
@_json_option
def boards(machine: bool) -> None:
    """List the kinds of boards, whether each can be used here, and what is connected."""
    from dtolbus_producer.boards import finding  # noqa: PLC0415  # as above

    kinds = finding.find_boards()
    for line in [finding.boards_json(kinds)] if machine else finding.boards_text(kinds):
        click.echo(line)


@command("doctor")
@option("--config", type=click.Path(path_type=Path), help="dtolbus.toml: ports, rates, sinks.  [default: as `up`]")
@option("--data", type=click.Path(path_type=Path), help="Data folder.  [default: the config's, or ./data]")
@dsn_options("postgresql://user@host/database")
@_json_option
def doctor(config: Path | None, data: Path | None, dsn: str | None, machine: bool) -> int:
    """Examine this machine: clocks, disk, memory, ports, sleep settings, boards, packages, and say what to do.

    Exit 0 when nothing is a problem, else 1.
    """
    from dtolbus_producer.doctor.examining import as_json, as_text, examine  # noqa: PLC0415  # as above
    from dtolbus_producer.plan import UpOptions, resolve  # noqa: PLC0415  # as above

    findings = examine(resolve(UpOptions(config=config, data=data, dsn=dsn)))
    for line in [as_json(findings)] if machine else as_text(findings):
        click.echo(line)
    return 1 if any(finding.state == "problem" for finding in findings) else 0
