"""The command lines `dtolbus prune`, `dtolbus recalibrate`, `dtolbus runs` and `dtolbus sinks`."""

from collections.abc import Sequence
from pathlib import Path

import click

from dtolbus.cli import Command, command, logged, option
from dtolbus.configfile import DEFAULT_DATA, config_option, data_folder, data_options
from dtolbus.errors import UsageError
from dtolbus_producer.quantities import parse_age, parse_size


@command("prune")
@data_options
@option("--keep", metavar="AGE", help="Delete segments older than this, e.g. 7d, 12h.")
@option("--max-size", metavar="SIZE", help="While the journal is larger, delete the oldest, e.g. 200G.")
@option("--summaries-suffice", is_flag=True, help="Delete also samples of which the sinks keep only summaries.")
@option("--dry-run", is_flag=True, help="Only tell what would go.")
def prune(data: Path, keep: str | None, max_size: str | None, summaries_suffice: bool, dry_run: bool) -> None:
    """Delete from the journal what every registered sink has: whole segments, the oldest first.

    What a sink still lacks stays, and so do a run that no registered sink takes and samples that none of them keeps.
    """
    from dtolbus_producer.pruning import prune as prune_journal  # noqa: PLC0415  # numpy is heavy; --help does without
    from dtolbus_producer.retention import Policy  # noqa: PLC0415  # as above

    if keep is None and max_size is None:
        raise UsageError("say what is to be kept: --keep 7d, --max-size 200G, or both")
    keep_s = None if keep is None else parse_age(keep)
    max_bytes = None if max_size is None else parse_size(max_size)
    policy = Policy(keep_s, max_bytes, summaries_suffice=summaries_suffice)
    for line in prune_journal(data, policy, dry_run=dry_run):
        click.echo(line)


@command("recalibrate")
@option("--data", type=click.Path(path_type=Path), help="Data folder.  [default: the config's, or ./data]")
@option("--run", "run_id", required=True, metavar="ID", help="The run, as `dtolbus runs` names it, or how that begins.")
@option("--channel", "names", multiple=True, metavar="NAME", help="A channel that was wrong; repeatable.")
@option("--sensitivity-v", type=float, help="Volts for one unit, in the place of --scale and --offset.")
@option("--scale", type=float, help="Units for each code.")
@option("--offset", type=float, help="Units at code 0.")
@option("--unit", help="What is measured.")
@option(
    "--config",
    type=click.Path(path_type=Path),
    help="dtolbus.toml: its data folder, and its channels as they should have been, unless an option says how.",
)
@option("--dry-run", is_flag=True, help="Only tell what would change.")
@option("--force", is_flag=True, help="Also where values change more than 20 times in their unit.")
def recalibrate(
    data: Path | None,
    run_id: str,
    names: tuple[str, ...],
    config: Path | None,
    dry_run: bool,
    force: bool,
    **given: float | str | None,
) -> None:
    """Write a run anew with another calibration, as a run of its own, which the sinks store like any other.

    The old run stays as it is. Of a config only what channels measure counts; without --channel all of them.
    """
    from dtolbus_producer.config import load_config  # noqa: PLC0415  # numpy is heavy; --help does without
    from dtolbus_producer.recalibrating import recalibrate as write_anew  # noqa: PLC0415  # as above
    from dtolbus_producer.recalibration import Linear  # noqa: PLC0415  # as above

    is_given = any(value is not None for value in given.values())
    if not is_given and config is None:
        raise UsageError("say what was wrong: --sensitivity-v, --scale, --offset, --unit, or else --config")
    if is_given and not names:
        raise UsageError("say which channel was wrong: --channel NAME")
    wanted = load_config(config) if config is not None and not is_given else Linear(**given)  # type: ignore[arg-type]  # as declared above
    folder = data_folder(config, data) or DEFAULT_DATA
    for line in write_anew(folder, run_id, names, wanted, dry_run=dry_run, force=force):
        click.echo(line)


@command("runs")
@data_options
@option("--json", "machine", is_flag=True, help="Print JSON.")
def runs(data: Path, machine: bool) -> None:
    """List the runs in a journal: state, records still there, size, and what each sink has acknowledged."""
    from dtolbus_producer import listing  # noqa: PLC0415  # as above

    lines, left_out = listing.run_lines(data)
    _tell(listing.as_json(lines) if machine else "\n".join(listing.runs_text(lines, left_out)), left_out)


def _tell(text: str, left_out: Sequence[str]) -> None:
    """Print the list, and to stderr what is not in it: then the exit code is 1."""
    click.echo(text)
    for what in left_out:
        click.echo(what, err=True)
    if left_out:
        raise click.exceptions.Exit(1)


class _Group(Command, click.Group):
    """A command with commands below it."""


@click.group("sinks", cls=_Group, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@data_options
@option("--json", "machine", is_flag=True, help="Print JSON.")
@logged
@click.pass_context
def sinks(context: click.Context, data: Path, machine: bool) -> None:
    """List the sinks that follow a journal, and how far behind each is."""
    from dtolbus_producer import listing  # noqa: PLC0415  # as above

    context.obj = data
    if context.invoked_subcommand is None:
        lines, left_out = listing.sink_lines(data)
        _tell(listing.as_json(lines) if machine else "\n".join(listing.sinks_text(lines, left_out)), left_out)


@command("forget")
@click.argument("name")
@option("--data", type=click.Path(path_type=Path), help="Data folder.  [default: the config's, or ./data]")
@config_option
@click.pass_context
def forget(context: click.Context, name: str, data: Path | None, config: Path | None) -> None:
    """Unregister the sink NAME: what it lacks no longer stays in the journal for its sake."""
    from dtolbus_producer import listing  # noqa: PLC0415  # as above

    for line in listing.forget_sink(data_folder(config, data) or context.obj, name):
        click.echo(line)


assert isinstance(sinks, click.Group)  # noqa: S101  # narrows the type, nothing rests on it
sinks.add_command(forget)
