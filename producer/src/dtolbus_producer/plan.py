"""What `dtolbus up` is asked to run, worked out from its options before anything is started."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from dtolbus.errors import CannotStartError, UsageError
from dtolbus.parquet.footer import Layout, Values
from dtolbus_producer.config import (
    Config,
    checked,
    default_config,
    load_config,
    with_duration,
)
from dtolbus_producer.durations import check_durations
from dtolbus_producer.postgres_embedded import EMBEDDED
from dtolbus_producer.registered import registered_sinks
from dtolbus_producer.sinkconfig import DEFAULT_SINKS, SINK_KINDS, BlocksMode, SinkConfig, default_sink
from dtolbus_producer.sinkplaces import default_place

_AGE_S = 1.0
_PARQUET_AGE_S = 10.0
_OF_SINK = {"parquet": ("layout", "values"), "postgres": ("index", "partition", "hypertable")}
"""Options of `up` that go to its sink of that kind, as `[sink.options]`."""


@dataclass(frozen=True)
class UpOptions:
    """The options of `dtolbus up`; None where not given."""

    config: Path | None = None
    board: str | None = None
    speed: str | None = None
    rate_hz: float | None = None
    data: Path | None = None
    duration_s: float | None = None
    sinks: str | None = None
    blocks: BlocksMode | None = None
    layout: Layout | None = None
    values: Values | None = None
    dsn: str | None = None
    index: str | None = None
    partition: str | None = None
    hypertable: bool = False
    host: str | None = None
    require_keys: bool = False
    insecure_lan: bool = False
    pub_port: int | None = None
    catchup_port: int | None = None
    meta: Mapping[str, str] | None = None
    catch_up: bool = False


def resolve(options: UpOptions) -> Config:
    """Return the configuration to run. Raises UsageError for options that cannot be, or not together."""
    if options.catch_up:
        _refuse_beside_catch_up(options)
    sinks = _sink_kinds(options)
    if options.config is None:
        board = options.board or "sim"
        if options.rate_hz is not None and board.startswith("playback"):
            raise UsageError("--rate: a recording has its own rate; --speed plays it faster or slower")
        config = default_config(
            board,
            rate_hz=options.rate_hz,
            speed=_speed(options.speed),
            sinks=(),
            meta=options.meta,
        )
    else:
        _refuse_beside_config(options)
        config = load_config(options.config)
        config = msgspec.structs.replace(config, run={**config.run, **(options.meta or {})})
    if options.catch_up and sinks is None and options.config is None:
        config = msgspec.structs.replace(config, sinks=registered_sinks(options.data or Path(config.data), options.dsn))
    elif sinks is not None or not config.sinks:
        _refuse_without_sink(options, sinks or DEFAULT_SINKS)
        chosen = tuple(_sink(kind, options) for kind in sinks or DEFAULT_SINKS)
        config = msgspec.structs.replace(config, sinks=chosen)
    elif options.dsn is not None:
        config = msgspec.structs.replace(config, sinks=_with_dsn(config.sinks, options.dsn))
    gateway = config.gateway
    gateway = msgspec.structs.replace(
        gateway,
        host=options.host or gateway.host,
        require_keys=options.require_keys or gateway.require_keys,
        insecure_lan=options.insecure_lan or gateway.insecure_lan,
        pub_port=options.pub_port or gateway.pub_port,
        catchup_port=options.catchup_port or gateway.catchup_port,
    )
    data = config.data if options.data is None else str(options.data)
    config = checked(msgspec.structs.replace(config, gateway=gateway, data=data), "options")
    config = config if options.duration_s is None else with_duration(config, options.duration_s)
    check_durations(config, options.duration_s, str(options.config or "options"))
    return msgspec.structs.replace(config, devices=()) if options.catch_up else config


def _sink_kinds(options: UpOptions) -> list[str] | None:
    """Return the kinds that were asked for; None where the config's, or the usual ones, are meant."""
    if options.sinks is None:
        adds_one = options.dsn is not None and options.config is None and not options.catch_up
        return [*DEFAULT_SINKS, "postgres"] if adds_one else None
    kinds = [kind.strip() for kind in options.sinks.split(",") if kind.strip()]
    for kind in kinds:
        if kind not in SINK_KINDS:
            nearest = difflib.get_close_matches(kind, SINK_KINDS, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(SINK_KINDS)}"
            raise UsageError(f"--sinks: there is no sink {kind!r}; {hint}")
    if not kinds:
        raise UsageError(f"--sinks names none; there are {', '.join(SINK_KINDS)}")
    return list(dict.fromkeys(kinds))


def _with_dsn(sinks: tuple[SinkConfig, ...], dsn: str) -> tuple[SinkConfig, ...]:
    """Return the config's sinks with the Postgres ones going to this database, and one added where there is none."""
    if not any(sink.kind == "postgres" for sink in sinks):
        return (*sinks, default_sink("postgres", dsn=dsn))
    return tuple(msgspec.structs.replace(sink, dsn=dsn) if sink.kind == "postgres" else sink for sink in sinks)


def _sink(kind: str, options: UpOptions) -> SinkConfig:
    sink = default_sink(kind, blocks=options.blocks, dsn=options.dsn or EMBEDDED)
    return msgspec.structs.replace(sink, options=_own_options(kind, options))


def _own_options(kind: str, options: UpOptions) -> dict[str, Any]:
    """Return what was asked of the sink of that kind alone."""
    given = {name: getattr(options, name) for name in _OF_SINK.get(kind, ())}
    return {name: value for name, value in given.items() if value}


def _refuse_without_sink(options: UpOptions, kinds: Sequence[str]) -> None:
    for kind in _OF_SINK:
        for name in _own_options(kind, options) if kind not in kinds else ():
            how = "give --dsn, or add it to --sinks" if kind == "postgres" else "add it to --sinks"
            raise UsageError(f"--{name} is the sink {kind}'s, which does not run: {how}")


def _speed(text: str | None) -> float | Literal["max"] | None:
    if text is None or text == "max":
        return cast('Literal["max"] | None', text)
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not (speed > 0 and math.isfinite(speed)):
        raise UsageError(f"--speed {text}: give a number above 0, or max")
    return speed


def _refuse_beside_config(options: UpOptions) -> None:
    for option, value in (("--board", options.board), ("--speed", options.speed), ("--rate", options.rate_hz)):
        if value is not None:
            raise UsageError(f"{option} and --config: the config says what runs; leave one of them out")
    if options.blocks is not None and options.sinks is None:
        raise UsageError("--blocks and --config: set blocks in the config's [[sink]], or give --sinks too")
    for kind in _OF_SINK if options.sinks is None else ():
        for name in _own_options(kind, options):
            raise UsageError(
                f"--{name} and --config: set {name} in the [sink.options] of the config's {kind} sink, or give "
                f"--sinks too"
            )


def _refuse_beside_catch_up(options: UpOptions) -> None:
    if options.blocks is not None and options.sinks is None:
        raise UsageError("--blocks and --catch-up: the sinks store blocks as they did; give --sinks too")
    for kind in _OF_SINK if options.sinks is None else ():
        for name in _own_options(kind, options):
            raise UsageError(f"--{name} and --catch-up: the {kind} sink stores as it did; give --sinks too")
    given = {
        "--board": options.board,
        "--speed": options.speed,
        "--rate": options.rate_hz,
        "--duration": options.duration_s,
        "--meta": options.meta or None,
    }
    for option, value in given.items():
        if value is not None:
            raise UsageError(f"{option} and --catch-up: no board runs then; leave one of them out")


def place_of(sink: SinkConfig, data: Path) -> str:
    """Return where the sink's data goes, for people."""
    if sink.kind == "postgres":
        return f"{data / 'postgres'} (embedded server)" if sink.dsn == EMBEDDED else "the database of --dsn"
    return sink.path or str(data / default_place(sink.kind, sink.name))


def batch_age_s(sink: SinkConfig) -> float:
    """Return after how long the sink commits what it has, as its worker's command line has it."""
    given = sink.options.get("max_age", sink.options.get("max-age"))
    return float(given) if given is not None else _PARQUET_AGE_S if sink.kind == "parquet" else _AGE_S


def worker_arguments(sink: SinkConfig, config: Config, data: Path) -> Sequence[str]:
    """Return the worker's command line after `python -m`; without the DSN, which never stands on one.

    Raises CannotStartError where the workers are not installed, or the gateway's host is no address.
    """
    if find_spec("dtolbus_workers") is None:
        raise CannotStartError("the sinks are not installed: pip install 'dtolbus-workers[all]'")
    connect, catchup = config.gateway.urls()
    arguments = ["dtolbus_workers", sink.kind, "--name", sink.name, "--connect", connect, "--catchup", catchup]
    if sink.kind != "postgres":
        arguments += ["--out", place_of(sink, data)]
    if sink.blocks is not None:
        arguments += ["--blocks", sink.blocks]
    for topic in sink.topics or ():
        arguments += ["--topic", topic]
    for key, value in sink.options.items():
        arguments += _option(key, value)
    return arguments


def _option(key: str, value: Any) -> list[str]:
    name = f"--{key.replace('_', '-')}"
    if isinstance(value, bool):
        return [name] if value else []
    return [name, str(value)]
