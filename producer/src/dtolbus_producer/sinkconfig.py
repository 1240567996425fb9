"""`[[sink]]`: one worker, and where it stores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import click
import msgspec

from dtolbus.cli import topic_prefix
from dtolbus.dsn import dsn_fault
from dtolbus.errors import UsageError
from dtolbus.parquet.footer import Form
from dtolbus_producer.postgres_embedded import EMBEDDED
from dtolbus_producer.sinkoptions import check_sink_options
from dtolbus_producer.sinkplaces import check_databases, check_sink_places
from dtolbus_producer.tasks import WrongKeyError

SinkKind = Literal["parquet", "sqlite", "postgres", "csv", "jsonl"]
BlocksMode = Literal["skip", "summary", "samples", "both"]

DEFAULT_SINKS = ("parquet", "sqlite", "csv", "jsonl")
SINK_KINDS = ("parquet", "sqlite", "postgres", "csv", "jsonl")
_READINGS_ONLY = {"csv", "jsonl"}
_SCHEMES = ("postgresql", "postgres")


class SinkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`[[sink]]`: one worker."""

    kind: SinkKind
    name: str = ""
    """How the bus knows it; the kind where it is not given."""
    blocks: BlocksMode | None = None
    """What is stored of a block; None: the kind's own way."""
    dsn: str | None = None
    """Postgres: where the database is."""
    path: str | None = None
    """Files: where they are written; None: in the data folder."""
    topics: tuple[str, ...] | None = None
    """Topics that it takes (`block/`, `reading/sim1/`); None: the kind's own."""
    options: dict[str, Any] = {}
    """Further arguments of its worker's command line, `[sink.options]`."""


def default_sink(kind: str, *, blocks: BlocksMode | None = None, dsn: str | None = None) -> SinkConfig:
    """Return the sink as `up` runs it; CSV and JSONL take readings only. Raises UsageError for an unknown kind."""
    if kind not in SINK_KINDS:
        raise UsageError(f"there is no sink {kind!r}; there are {', '.join(SINK_KINDS)}")
    if kind in _READINGS_ONLY:
        return SinkConfig(kind=kind, name=kind, topics=("reading/",))  # type: ignore[arg-type]  # checked above
    mode = blocks if kind in ("sqlite", "postgres") else None
    return SinkConfig(kind=kind, name=kind, blocks=mode, dsn=dsn if kind == "postgres" else None)  # type: ignore[arg-type]  # checked above


def check_sinks(data: Path, sinks: Sequence[SinkConfig]) -> None:
    """Raise WrongKeyError where a sink cannot be, or not beside the others."""
    for place, sink in enumerate(sinks):
        _check_sink(f"sink[{place}]", sink)
    check_sink_places(data, ((sink.kind, sink.name, sink.path) for sink in sinks))
    check_databases(
        (place, sink.dsn, str(sink.options.get("schema", "public")))
        for place, sink in enumerate(sinks)
        if sink.kind == "postgres"
    )


def _check_sink(key: str, sink: SinkConfig) -> None:
    if sink.kind == "postgres":
        _check_dsn(f"{key}.dsn", sink.dsn)
    elif sink.dsn:
        raise WrongKeyError(f"{key}.dsn", f"a {sink.kind} sink has none; leave it out")
    if sink.kind == "postgres" and sink.path is not None:
        raise WrongKeyError(f"{key}.path", f"{sink.path!r}: a postgres sink has none; its dsn says where the data goes")
    if sink.blocks is not None:
        _check_blocks(f"{key}.blocks", sink.kind, sink.blocks)
    for place, topic in enumerate(sink.topics or ()):
        _check_topic(f"{key}.topics[{place}]", sink, topic)
    check_sink_options(f"{key}.options", sink.kind, sink.options)
    if sink.kind == "parquet":
        _check_form(f"{key}.options.values", sink.options)
    if sink.options.get("hypertable") and sink.options.get("partition") == "month":
        raise WrongKeyError(
            f"{key}.options.hypertable", "a hypertable has its own parts: leave partition = 'month' out"
        )


def _check_dsn(key: str, dsn: str | None) -> None:
    """Raise WrongKeyError where it is no DSN; its password is not shown."""
    example = "'postgresql://user@host/database'"
    if not dsn:
        raise WrongKeyError(key, f"a postgres sink needs one, such as {example}")
    scheme, sign, _ = dsn.partition("://")
    if dsn != EMBEDDED and (not sign or scheme not in _SCHEMES):
        raise WrongKeyError(key, f"{f'{scheme}://…' if sign else 'what is given'!r} is none: give one like {example}")
    if dsn != EMBEDDED and (fault := dsn_fault(dsn)):
        raise WrongKeyError(key, f"'{scheme}://…' {fault}")


def _check_blocks(key: str, kind: str, blocks: str) -> None:
    allowed = ("skip", "summary", "samples") if kind in _READINGS_ONLY else ("summary", "samples", "both")
    if kind == "parquet":
        raise WrongKeyError(key, f"{blocks!r}: a parquet sink stores every sample; leave the key out")
    if blocks not in allowed:
        raise WrongKeyError(key, f"{blocks!r}: a {kind} sink takes {', '.join(map(repr, allowed))}")


def _check_form(key: str, options: dict[str, Any]) -> None:
    form = {name: options[name] for name in ("layout", "values") if name in options}
    try:
        Form(**form)
    except ValueError as error:
        raise WrongKeyError(key, str(error)) from error


def _check_topic(key: str, sink: SinkConfig, topic: str) -> None:
    try:
        prefix = topic_prefix(topic)
    except click.BadParameter as error:
        raise WrongKeyError(key, error.message) from error
    if prefix.startswith("block") and sink.kind in _READINGS_ONLY and sink.blocks in (None, "skip"):
        raise WrongKeyError(key, f"{topic!r}: say what to store of blocks: blocks = 'summary' or 'samples'")
