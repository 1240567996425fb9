"""`dtolbus.toml`: the whole stack of one machine, typed and strict."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from dtolbus.errors import UsageError
from dtolbus.jsonreading import read_json
from dtolbus.tomlreading import read_toml
from dtolbus.topics import shortened
from dtolbus_producer.addresses import Protection, protection, reached_at
from dtolbus_producer.boards import board_class
from dtolbus_producer.boards.foreign import check_foreign
from dtolbus_producer.boards.guarding import check_device
from dtolbus_producer.configkeys import key_problem, number_problem
from dtolbus_producer.configplaces import check_path, expanded
from dtolbus_producer.journalconfig import JournalConfig
from dtolbus_producer.sinkconfig import DEFAULT_SINKS, BlocksMode, SinkConfig, check_sinks, default_sink
from dtolbus_producer.taskchecks import check_names, check_task
from dtolbus_producer.tasks import ChannelConfig, DeviceConfig, TaskConfig, WrongKeyError

_HIGHEST_PORT = 65_535
_LEAST_MB_S = 0.1
_LONGEST_RECONNECT_S = 1e9
_SIM_THROUGHPUT_HZ = 50_000


class GatewayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[gateway]`: where the bus is served."""

    host: str = "127.0.0.1"
    pub_port: int = 5601
    catchup_port: int = 5602
    catchup_mb_s: float = 200.0
    """What all clients together are served of what was before, at most, MB/s: publishing comes first."""
    require_keys: bool = False
    """Whether keys are asked for on the loopback too; elsewhere they always are."""
    insecure_lan: bool = False
    """Whether none are, at an address that others can reach."""

    def protection(self) -> Protection:
        """Return what keeps strangers out. Raises CannotStartError for a host that is no address."""
        return protection(self.host, require_keys=self.require_keys, insecure_lan=self.insecure_lan)

    def urls(self) -> tuple[str, str]:
        """Return where this machine reaches the live records and the catch-up. Raises CannotStartError as above."""
        address = reached_at(self.host)
        return f"tcp://{address}:{self.pub_port}", f"tcp://{address}:{self.catchup_port}"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The whole file."""

    data: str = "data"
    """The data folder; `~` is the home folder, a relative path is below the folder of whoever starts it."""
    run: dict[str, Any] = {}
    """Run metadata, free keys: operator, specimen, sensor serials, calibration dates."""
    devices: tuple[DeviceConfig, ...] = msgspec.field(default=(), name="device")
    gateway: GatewayConfig = GatewayConfig()
    journal: JournalConfig = JournalConfig()
    sinks: tuple[SinkConfig, ...] = msgspec.field(default=(), name="sink")

    def device(self, name: str) -> DeviceConfig:
        """Return the device of that name. Raises UsageError where there is none."""
        for device in self.devices:
            if device.name == name:
                return device
        raise UsageError(f"there is no device {name!r}; the config has {_listed(d.name for d in self.devices)}")


def load_config(path: Path) -> Config:
    """Return the configuration in a file: TOML, or JSON as `dump_config` writes it.

    Raises UsageError, which names file, key, value and what is allowed.
    """
    try:
        data = path.read_bytes()
        raw = _json_of(data) if path.suffix == ".json" else read_toml(data)
    except OSError as error:
        raise UsageError(f"{path}: the config cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    return config_from(raw, str(path))


def _json_of(data: bytes) -> object:
    try:
        return read_json(data)
    except ValueError as error:
        raise ValueError(f"not a JSON file: {error}") from error


def dump_config(config: Config) -> bytes:
    """Return the configuration as JSON, for `load_config` in another process."""
    return msgspec.json.format(msgspec.json.encode(config))


def config_from(raw: object, source: str = "config") -> Config:
    """Return the configuration that plain data describe, checked. Raises UsageError beginning with `source`."""
    problem = key_problem(raw, Config)
    if problem is not None:
        raise UsageError(f"{source}: {problem}")
    try:
        config = msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        raise UsageError(f"{source}: {error}") from error
    return checked(config, source)


def checked(config: Config, source: str = "config") -> Config:
    """Return the configuration with its sinks named and its paths whole.

    Raises UsageError where something in it cannot be.
    """
    config = msgspec.structs.replace(
        config, sinks=tuple(msgspec.structs.replace(sink, name=sink.name or sink.kind) for sink in config.sinks)
    )
    try:
        config = _with_paths(config)
        _check_numbers(config)
        if not config.devices:
            raise WrongKeyError("device", "no device is configured: add a [[device]]")
        check_names("device", [device.name for device in config.devices])
        check_names("sink", [sink.name for sink in config.sinks])
        check_sinks(Path(config.data), config.sinks)
    except WrongKeyError as error:
        raise UsageError(f"{source}: {error}") from error
    for place, device in enumerate(config.devices):
        _check_device(f"device[{place}]", device, source)
    problem = number_problem(msgspec.to_builtins(config))
    if problem is not None:
        raise UsageError(f"{source}: {problem}")
    return config


def default_config(
    board: str = "sim",
    *,
    rate_hz: float | None = None,
    speed: float | Literal["max"] | None = None,
    duration_s: float | None = None,
    sinks: Iterable[str] = DEFAULT_SINKS,
    blocks: BlocksMode | None = None,
    dsn: str | None = None,
    data: str = "data",
    pub_port: int = 5601,
    catchup_port: int = 5602,
    meta: Mapping[str, Any] | None = None,
) -> Config:
    """Return what `dtolbus up` runs without a file. Raises UsageError where an option cannot be.

    `sim`: device `sim0` with the block task `vibration` (4 channels, 10 kHz) and `sim1` with the polled task
    `temperature` (3 thermocouples, 5 Hz). `playback:PATH`: one block task named like the file. Any other board: the
    block task `vibration` alone. `rate_hz` is the block task's; `blocks` is for the sinks that store blocks in more
    than one way.
    """
    kind = DeviceConfig("", board).board_kind
    if kind == "playback":
        devices = _playback_devices(board, rate_hz, speed, duration_s)
    elif kind == "sim":
        devices = _sim_devices(board, rate_hz, speed, duration_s)
    else:
        devices = _real_devices(board, kind, rate_hz, speed, duration_s)
    config = Config(
        data=data,
        run=dict(meta or {}),
        devices=devices,
        gateway=GatewayConfig(pub_port=pub_port, catchup_port=catchup_port),
        sinks=tuple(default_sink(kind, blocks=blocks, dsn=dsn) for kind in sinks),
    )
    return checked(config, "options")


def with_duration(config: Config, duration_s: float) -> Config:
    """Return the configuration with every task ending by itself after `duration_s`, or sooner where it did."""

    def ends(task: TaskConfig) -> TaskConfig:
        return msgspec.structs.replace(task, duration_s=min(duration_s, task.duration_s or math.inf))

    devices = tuple(
        msgspec.structs.replace(device, tasks=tuple(ends(task) for task in device.tasks)) for device in config.devices
    )
    return checked(msgspec.structs.replace(config, devices=devices), "--duration")


def _sim_devices(
    board: str, rate_hz: float | None, speed: float | str | None, duration_s: float | None
) -> tuple[DeviceConfig, ...]:
    options: dict[str, Any] = {} if speed is None else {"speed": speed}
    vibration = _vibration(rate_hz, duration_s)
    total_hz = (vibration.rate_hz or 0.0) * len(vibration.channels)
    if total_hz > _SIM_THROUGHPUT_HZ:
        options["throughput_hz"] = total_hz
    sensors = tuple(ChannelConfig(f"tc{n}", physical=n, thermocouple="K") for n in range(3))
    temperature = TaskConfig("temperature", "readings", rate_hz=5.0, channels=sensors, duration_s=duration_s)
    return (
        DeviceConfig("sim0", board, options, (vibration,)),
        DeviceConfig("sim1", board, {}, (temperature,)),
    )


def _real_devices(
    board: str, kind: str, rate_hz: float | None, speed: float | str | None, duration_s: float | None
) -> tuple[DeviceConfig, ...]:
    if speed is not None:
        raise UsageError(f"--speed {speed}: the board {board!r} runs at its own; leave the option out")
    return (DeviceConfig(f"{kind}0", board, {}, (_vibration(rate_hz, duration_s),)),)


def _vibration(rate_hz: float | None, duration_s: float | None) -> TaskConfig:
    inputs = tuple(ChannelConfig(f"ai{n}", physical=n) for n in range(4))
    return TaskConfig(
        "vibration", rate_hz=10_000.0 if rate_hz is None else rate_hz, channels=inputs, duration_s=duration_s
    )


def _playback_devices(
    board: str, rate_hz: float | None, speed: float | str | None, duration_s: float | None
) -> tuple[DeviceConfig, ...]:
    name = shortened(Path(board.partition(":")[2]).stem or "recording")
    task = TaskConfig(name, rate_hz=rate_hz, duration_s=duration_s)
    return (DeviceConfig("playback", board, {} if speed is None else {"speed": speed}, (task,)),)


def _with_paths(config: Config) -> Config:
    """Return the configuration with `~` as the home folder."""
    for place, device in enumerate(config.devices):
        check_path(f"device[{place}].board", device.board)
    sinks = [
        sink if sink.path is None else msgspec.structs.replace(sink, path=expanded(f"sink[{place}].path", sink.path))
        for place, sink in enumerate(config.sinks)
    ]
    return msgspec.structs.replace(config, data=expanded("data", config.data), sinks=tuple(sinks))


def _check_numbers(config: Config) -> None:
    gateway = config.gateway
    for key, port in (("pub_port", gateway.pub_port), ("catchup_port", gateway.catchup_port)):
        if not 0 <= port <= _HIGHEST_PORT:
            raise WrongKeyError(f"gateway.{key}", f"{port}: a port is 1 to {_HIGHEST_PORT}, or 0 for any free one")
    if gateway.pub_port == gateway.catchup_port != 0:
        raise WrongKeyError("gateway.catchup_port", f"{gateway.catchup_port} is pub_port too: give each its own")
    if gateway.require_keys and gateway.insecure_lan:
        raise WrongKeyError(
            "gateway.insecure_lan", "with require_keys too: with keys or without? Leave one of them out"
        )
    if not (gateway.catchup_mb_s >= _LEAST_MB_S and math.isfinite(gateway.catchup_mb_s)):
        why = f"{gateway.catchup_mb_s:g}: give a number of at least {_LEAST_MB_S:g}, MB/s"
        raise WrongKeyError("gateway.catchup_mb_s", why)
    config.journal.check()


def _check_device(key: str, device: DeviceConfig, source: str) -> None:
    try:
        if not 0 <= device.reconnect_s <= _LONGEST_RECONNECT_S:
            why = f"{device.reconnect_s:g}: give a number of seconds, 0 or more, at most {_LONGEST_RECONNECT_S:g}"
            raise WrongKeyError("reconnect_s", why)
        if not device.tasks:
            raise WrongKeyError("task", f"the device {device.name!r} has no task: add a [[device.task]]")
        check_names("task", [task.name for task in device.tasks])
        for place, task in enumerate(device.tasks):
            check_task(f"task[{place}]", task)
        kind = board_class(device.board_kind)
        check_foreign(device, kind.options_type)
        problem = key_problem(device.options, kind.options_type)
        if problem is not None:
            raise UsageError(f"{source}: {key}.options.{problem}")
        check_device(kind, device)
    except WrongKeyError as error:
        raise UsageError(f"{source}: {key}.{error}") from error
    except msgspec.ValidationError as error:
        raise UsageError(f"{source}: {key}.options: {error}") from error


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none"
