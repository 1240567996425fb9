"""The workers' command lines, and `dtolbus verify`."""

import contextlib
import socket
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dtolbus.cli import Command, command, option, stop_event, topic_option
from dtolbus.configfile import data_options
from dtolbus.dsn import dsn_options
from dtolbus.errors import UsageError
from dtolbus.keyoptions import key_options
from dtolbus.metricsoptions import MetricsPlace, metrics_options, telling
from dtolbus.shown import printable
from dtolbus.topics import name_fault
from dtolbus.waiting import Waiting
from dtolbus_workers.postgres_options import tls_options
from dtolbus_workers.registry import destination_class

if TYPE_CHECKING:
    from dtolbus.keys import Keys

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _instant(context: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    """Return `2026-03-01`, `2026-03-01T12:00+01:00`, or `7d` (ago), as ns since 1970."""
    from dtolbus.records import ns_from_utc  # noqa: PLC0415  # --help does without

    if text is None:
        return None
    try:
        if text[:-1].isdecimal() and text[-1] in _UNITS:
            return ns_from_utc(datetime.now(UTC) - timedelta(seconds=int(text[:-1]) * _UNITS[text[-1]]))
        instant = datetime.fromisoformat(text)
        return ns_from_utc(instant if instant.tzinfo else instant.astimezone())
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"{text!r} is neither an instant like 2026-03-01T12:00 nor an age like 7d") from error


def _bus_options(call: Callable[..., Any]) -> Callable[..., Any]:
    for add in reversed(
        [
            option("--connect", default="tcp://127.0.0.1:5601", help="Where the gateway publishes."),
            option("--catchup", default="tcp://127.0.0.1:5602", help="Where the gateway answers."),
            topic_option(),
            option("--name", help="Name of this sink, one for each destination.  [default: its key's, or the kind]"),
            option(
                "--since", callback=_instant, help="Leave out runs that began earlier: an instant, or an age like 7d."
            ),
            option("--until-end", is_flag=True, help="End once every run is over and stored."),
            option(
                "--drain",
                "drain_s",
                type=click.FloatRange(0.0),
                default=0.0,
                show_default=True,
                help="Seconds to go on, told to stop, for what lacks of runs that are over.",
            ),
            option("--journal", default="", metavar="ID", help="End with 3 where the gateway serves another journal."),
            option("--stack", default="", hidden=True, help="The same, of one start of `dtolbus up`."),
            option("--max-age", "age_s", type=click.FloatRange(0.01), help="Seconds after which a batch is committed."),
            key_options,
            metrics_options,
        ]
    ):
        call = add(call)
    return call


def _work(
    kind: str,
    destination: Any,
    place: str,
    *,
    connect: str,
    catchup: str,
    topics: tuple[str, ...],
    name: str | None,
    since: int | None,
    until_end: bool,
    drain_s: float,
    age_s: float | None,
    journal: str,
    stack: str,
    keys: "Keys | None",
    metrics: MetricsPlace | None,
    options: dict[str, str] | None = None,
    usual_age_s: float = 1.0,
) -> None:
    import asyncio  # noqa: PLC0415  # --help does without

    from dtolbus.client import Endpoints  # noqa: PLC0415  # as above
    from dtolbus.identity import Identity  # noqa: PLC0415  # as above
    from dtolbus.registrations import SINCE_OPTION  # noqa: PLC0415  # as above
    from dtolbus_workers.batch import BatchPolicy  # noqa: PLC0415  # as above
    from dtolbus_workers.worker import WorkerConfig, run_worker  # noqa: PLC0415  # as above

    name = name or (kind if keys is None else keys.name)
    fault = name_fault(name)
    if fault:
        raise UsageError(f"--name: {fault}")
    config = WorkerConfig(
        name=name,
        at=Endpoints(connect, catchup, topics, keys),
        place=place,
        options={
            "host": socket.gethostname(),
            **({} if since is None else {SINCE_OPTION: str(since)}),
            **(options or {}),
        },
        since_utc_ns=since,
        until_end=until_end,
        drain_s=drain_s,
        policy=BatchPolicy(age_s=age_s or usual_age_s),
        expects=Identity(journal, stack),
    )
    with telling(metrics, f"sink {name}") as tell:
        asyncio.run(run_worker(destination, config, stop_event(), tell))


@command("dtolbus-parquet")
@option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the Parquet files.")
@option(
    "--layout",
    type=click.Choice(["long", "wide"]),
    default="long",
    help="Of blocks: a row for each sample of each channel, or one for each instant with a column for each channel.",
)
@option(
    "--values",
    type=click.Choice(["float64", "float32", "codes"]),
    default="float64",
    help="What is stored of a sample: its value, that rounded to float32, or with --layout wide the board's code.",
)
@_bus_options
def parquet(out: Path, layout: str, values: str, **bus: Any) -> None:
    """Store blocks and readings as Parquet, a folder for each run; a run keeps the layout with which it was begun."""
    try:
        destination = destination_class("parquet")(out, layout=layout, values=values)
    except ValueError as error:
        raise UsageError(f"--layout {layout} --values {values}: {error}") from error
    # a part is a file of its own: fewer, larger ones
    form = {"layout": layout, "values": values}
    _work("parquet", destination, str(out.absolute()), options=form, usual_age_s=10.0, **bus)


_blocks_option = option(
    "--blocks",
    type=click.Choice(["summary", "samples", "both"]),
    default="summary",
    help="What to store of a block: a summary row, a row for each sample, or both.",
)


@command("dtolbus-sqlite")
@option("--out", type=click.Path(path_type=Path), required=True, help="SQLite file.")
@_blocks_option
@_bus_options
def sqlite(out: Path, blocks: str, **bus: Any) -> None:
    """Store blocks and readings in a SQLite file."""
    destination = destination_class("sqlite")(out, blocks=blocks)
    _work("sqlite", destination, str(out.absolute()), options={"blocks": blocks}, **bus)


@command("dtolbus-postgres")
@dsn_options("postgresql://user@host/database")
@tls_options
@option("--schema", default="public", help="Schema of the tables; made where it is missing.")
@_blocks_option
@option(
    "--index",
    type=click.Choice(["none", "brin"]),
    help="Index of a new table of samples, by run and time. [usual: brin]",
)
@option(
    "--partition", type=click.Choice(["none", "month"]), help="Parts of a new table of samples, by time. [usual: none]"
)
@option("--hypertable", is_flag=True, help="Make a new table of samples a hypertable of TimescaleDB.")
@_bus_options
def postgres(
    dsn: str | None,
    schema: str,
    blocks: str,
    index: Any,
    partition: Any,
    hypertable: bool,
    tls: dict[str, str],
    **bus: Any,
) -> None:
    """Store blocks and readings in PostgreSQL.

    A table of samples that is there is kept as it is; without --index, --partition and --hypertable it is gone on with.
    """
    from dtolbus_workers.postgres import PostgresConfig  # noqa: PLC0415  # only this sink needs it
    from dtolbus_workers.postgres_layout import SamplesLayout  # noqa: PLC0415  # as above

    if not dsn:
        raise UsageError("no database: give --dsn postgresql://user@host/database, --dsn-file, or set DTOLBUS_DSN")
    try:
        config = PostgresConfig(dsn=dsn, schema=schema, create_tables=True).secured(tls)
    except ValueError as error:
        raise UsageError(str(error)) from error
    destination = destination_class("postgres")(
        config, blocks=blocks, layout=SamplesLayout(index, partition, hypertable)
    )
    _work("postgres", destination, config.target(), options={"blocks": blocks, "schema": schema, **tls}, **bus)


def _text_command(kind: str, about: str) -> Command:
    @command(f"dtolbus-{kind}", help=about)
    @option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the files.")
    @option(
        "--blocks",
        type=click.Choice(["skip", "summary", "samples"]),
        default="skip",
        help="What to store of a block: nothing, a summary row, or a row for each sample (large!).",
    )
    @_bus_options
    def work(out: Path, blocks: str, topics: tuple[str, ...], **bus: Any) -> None:
        if blocks == "skip":
            topics = _readings_only(topics)
        destination = destination_class(kind)(out, blocks=blocks)
        _work(kind, destination, str(out.absolute()), topics=topics, options={"blocks": blocks}, **bus)

    assert isinstance(work, Command)  # noqa: S101  # narrows the type, nothing rests on it
    return work


def _readings_only(topics: tuple[str, ...]) -> tuple[str, ...]:
    """Return the topics to take where blocks are not stored. Raises UsageError where blocks are asked for."""
    blocks = [topic for topic in topics if topic.startswith("block")]
    if blocks:
        raise UsageError(f"--topic {blocks[0]} asks for blocks; say what to store of them: --blocks summary or samples")
    return topics or ("reading/",)


csv = _text_command("csv", "Store readings as CSV files, one for each run.")
jsonl = _text_command("jsonl", "Store readings as JSON lines, a file for each run.")


@command("verify")
@data_options
@option(
    "--run",
    "run_ids",
    multiple=True,
    envvar="DTOLBUS_RUN",
    help="Check this run only (the id, or how it begins); repeatable.",
)
@option("--sink", "sinks", multiple=True, envvar="DTOLBUS_SINK", help="Check this sink only; repeatable.")
@option("--json", "machine", is_flag=True, help="Print JSON.")
@option("--catchup", help="Read the journal through this gateway (tcp://daq-pc:5602) instead of --data; needs --at.")
@option(
    "--at", "places", multiple=True, metavar="KIND=PLACE", help="With --catchup: a sink of this machine; repeatable."
)
@option("--blocks", help="With --at: what the sinks store of a block; CSV and JSONL take none unless told.")
@option("--schema", default="public", help="With --at postgres=…: schema of the tables.")
@option("--topic", "topics", multiple=True, envvar="DTOLBUS_TOPIC", help="With --at: prefix that the sinks take.")
@key_options
@option("--progress-every", "every_s", type=click.FloatRange(0.0), default=10.0, hidden=True, help="Seconds.")
def verify(
    data: Path,
    run_ids: tuple[str, ...],
    sinks: tuple[str, ...],
    machine: bool,
    catchup: str | None,
    every_s: float,
    keys: "Keys | None",
    **at: Any,
) -> int:
    """Compare every sink of a data folder with the journal: the completeness certificate.

    Exit 0 when nothing is missing, doubled or different, else 1. With --catchup the journal is that of a gateway, and
    the sinks are those named by --at. What takes long tells on stderr how far it is.
    """
    from dtolbus_workers import certificate_text  # noqa: PLC0415  # only this command needs it
    from dtolbus_workers import verify as verification  # noqa: PLC0415  # as above
    from dtolbus_workers.verify_remote import sinks_at, verify_remote  # noqa: PLC0415  # as above

    places = at.pop("places")
    if bool(catchup) != bool(places):
        raise UsageError(
            "--catchup URL and --at KIND=PLACE go together: whose journal, and which sinks of this machine"
        )
    if catchup and sinks:
        raise UsageError("--sink names sinks of a data folder; with --catchup --at names them")
    with contextlib.closing(Waiting(sys.stderr, every_s)) as waiting:

        def tell(what: str, percent: int) -> None:
            waiting.show(lambda: certificate_text.verifying(what, percent))

        if catchup:
            certificate = verify_remote(catchup, sinks_at(places, **at), run_ids, tell, keys)
        else:
            certificate = verification.verify(data, run_ids, sinks, tell)
    if machine:
        click.echo(certificate_text.as_json(certificate))
    else:
        for line in certificate_text.as_text(certificate):
            click.echo(printable(line))
    return 0 if certificate.complete else 1


COMMANDS = {"parquet": parquet, "sqlite": sqlite, "postgres": postgres, "csv": csv, "jsonl": jsonl}


def main() -> None:
    """`python -m dtolbus_workers KIND …`: the five worker commands by their kind."""
    kind = sys.argv[1] if len(sys.argv) > 1 else ""
    if kind not in COMMANDS:
        click.echo(f"dtolbus_workers: {kind!r} is not a sink; there are {', '.join(COMMANDS)}", err=True)
        sys.exit(2)
    COMMANDS[kind].main(sys.argv[2:], prog_name=f"dtolbus-{kind}")
