"""The command lines `dtolbus-producer`, `dtolbus-gateway` and `dtolbus up`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dtolbus.cli import Command, command, option, parse_pairs, stop_event
from dtolbus.dsn import dsn_options
from dtolbus.errors import UsageError
from dtolbus.metricsoptions import MetricsPlace, metrics_options, telling
from dtolbus.seconds import Seconds
from dtolbus_producer.priority import go_first, stand_back
from dtolbus_start.health import health

_PORT = click.IntRange(1, 65535)
_ABOVE_0 = click.FloatRange(min=0, min_open=True)


class _Group(Command, click.Group):
    """A command with commands below it."""


def _add(group: click.Command, made: click.Command) -> None:
    assert isinstance(group, click.Group)  # noqa: S101  # narrows the type, nothing rests on it
    group.add_command(made)


@click.group(
    "dtolbus-producer", cls=_Group, no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="dtolbus-producer")
def producer() -> None:
    """Drive the boards and write the journal."""


@command("run")
@option("--config", type=click.Path(path_type=Path), required=True, help="dtolbus.toml.")
@option("--device", help="Acquire this device only.  [default: all, a process for each]")
@option("--data", type=click.Path(path_type=Path), help="Data folder.  [default: the config's]")
@option(
    "--duration", "duration_s", type=Seconds(), help="After so long every task ends, at its exact sample: 10, 5min, 2h."
)
@option(
    "--goes-on-from",
    multiple=True,
    metavar="RUN_ID",
    help="Acquire only what this run, and those it went on from, did not get; one for each task.",
)
@metrics_options
def run(
    config: Path,
    device: str | None,
    data: Path | None,
    duration_s: float | None,
    goes_on_from: tuple[str, ...],
    metrics: MetricsPlace | None,
) -> int:
    """Acquire until the tasks end, or Ctrl-C."""
    from dtolbus_producer.producing import run_producer  # noqa: PLC0415  # numpy is heavy; --help does without

    go_first()
    return run_producer(config, device, data, duration_s, goes_on_from, stop_event(), metrics)


@click.group(
    "dtolbus-gateway", cls=_Group, no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="dtolbus-producer")
def gateway() -> None:
    """Publish a journal and serve what was before."""


@command("serve")
@click.argument("data", type=click.Path(path_type=Path), metavar="DIR")
@option(
    "--host", default="127.0.0.1", help="IPv4 address to bind, 0.0.0.0 for all; others than the loopback need keys."
)
@option("--pub-port", type=_PORT, default=5601, help="Port of the live records.")
@option("--catchup-port", type=_PORT, default=5602, help="Port where what was before is fetched.")
@option(
    "--catchup-mb-s",
    type=click.FloatRange(0.1),
    default=200.0,
    help="MB a second of what was before, for all clients together.",
)
@option("--require-keys", is_flag=True, help="Ask for keys on the loopback too.")
@option(
    "--insecure-lan", is_flag=True, help="No keys at an address that others can reach: whoever does, reads and acks."
)
@option("--stack", default="", hidden=True, help="Which start of `dtolbus up` this is a part of.")
@metrics_options
def serve(data: Path, *, require_keys: bool, insecure_lan: bool, metrics: MetricsPlace | None, **settings: Any) -> None:
    """Serve the data folder DIR until Ctrl-C."""
    from dtolbus_producer.gateway import serve as serve_folder  # noqa: PLC0415  # as above
    from dtolbus_producer.memory import MemoryWatch  # noqa: PLC0415  # as above

    if require_keys and insecure_lan:
        raise UsageError("--require-keys and --insecure-lan: with keys or without? Leave one of them out")
    stand_back()
    settings |= {"require_keys": require_keys, "insecure_lan": insecure_lan, "memory": MemoryWatch()}
    stop = stop_event()
    with telling(metrics, "gateway") as tell:
        serve_folder(data, stop=stop, tell=tell, **settings)


_add(producer, run)
_add(producer, health)
_add(gateway, serve)
_add(gateway, health)


def what_runs(call: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what `dtolbus up` runs."""
    for add in reversed(
        [
            option(
                "--config", type=click.Path(path_type=Path), help="dtolbus.toml; without it two simulated boards run."
            ),
            option(
                "--board", help="A kind of board, as `dtolbus boards` lists them: sim, playback:PATH, dtollib[:NAME], …"
            ),
            option("--speed", help="How fast a recording or the simulation runs: a factor, or max."),
            option("--rate", "rate_hz", type=_ABOVE_0, help="Samples a second and channel of the simulated board."),
            option("--data", type=click.Path(path_type=Path), help="Data folder.  [default: ./data]"),
            option(
                "--duration",
                "duration_s",
                type=Seconds(),
                help="How long every task records, at most: 10 (seconds), 5min, 2h.  [default: until Ctrl-C]",
            ),
            option("--sinks", help="Comma-separated: parquet,sqlite,postgres,csv,jsonl.  [default: all but postgres]"),
            option(
                "--blocks",
                type=click.Choice(["summary", "samples", "both"]),
                help="What SQLite and Postgres store of a block.  [default: summary]",
            ),
            option(
                "--layout",
                type=click.Choice(["long", "wide"]),
                help="Of blocks in Parquet: a row for each sample, or for each instant.  [default: long]",
            ),
            option(
                "--values",
                type=click.Choice(["float64", "float32", "codes"]),
                help="What Parquet stores of a sample; codes need --layout wide.  [default: float64]",
            ),
            dsn_options("postgresql://user@host/database: adds the sink postgres"),
            option("--index", type=click.Choice(["none", "brin"]), help="Of Postgres' samples, if new.  [usual: brin]"),
            option(
                "--partition", type=click.Choice(["none", "month"]), help="Of Postgres' samples, if new.  [usual: none]"
            ),
            option("--hypertable", is_flag=True, help="Postgres' samples, if new, are a TimescaleDB hypertable."),
            option("--host", help="IPv4 address that is served, 0.0.0.0 for all: with keys.  [default: 127.0.0.1]"),
            option("--require-keys", is_flag=True, help="Ask for keys on the loopback too."),
            option("--insecure-lan", is_flag=True, help="No keys at an address that others can reach."),
            option("--pub-port", type=_PORT, help="Port of the live records.  [default: 5601]"),
            option("--catchup-port", type=_PORT, help="Port of the catch-up.  [default: 5602]"),
            option("--meta", multiple=True, metavar="KEY=VALUE", help="Run metadata, e.g. operator=Ada; repeatable."),
        ]
    ):
        call = add(call)
    return call


@command("up")
@what_runs
@option(
    "--catch-up",
    is_flag=True,
    help="No boards: let the sinks store what the journal holds; all that registered, or those of --sinks or --config.",
)
@metrics_options
def up(meta: tuple[str, ...], duration_s: float | None, metrics: MetricsPlace | None, **options: Any) -> int:
    """Run the whole stack on this machine: boards, journal, bus and sinks; then verify that nothing is missing.

    Exit 0 when every sink is complete.
    """
    from dtolbus_producer.configplaces import misplaced  # noqa: PLC0415  # as above
    from dtolbus_producer.plan import UpOptions, resolve  # noqa: PLC0415  # as above
    from dtolbus_producer.stack import run_up  # noqa: PLC0415  # as above

    pairs = parse_pairs(meta, "--meta")
    config = resolve(UpOptions(meta=pairs, duration_s=duration_s, **options))
    for remark in misplaced(config.run, config.data):
        click.echo(f"note: {remark}", err=True)
    return run_up(config, duration_s, stop_event(), metrics)
