"""The parts of a stack: which child processes there are, and how each is called."""

import math
import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import zmq

from dtolbus import files
from dtolbus.connecting import connected
from dtolbus.errors import CannotStartError, WireError
from dtolbus.identity import Identity
from dtolbus.keyring import KeyRing
from dtolbus.keys import Keys, load_keys
from dtolbus.topics import quote
from dtolbus.wire import Hello, Welcome, decode, encode
from dtolbus_producer.addresses import bind_address, insecure
from dtolbus_producer.children import Child, ChildSpec
from dtolbus_producer.config import Config, GatewayConfig, dump_config
from dtolbus_producer.plan import batch_age_s, place_of, worker_arguments
from dtolbus_producer.ports import host_problem, port_problem
from dtolbus_producer.resuming import newest_runs, run_names
from dtolbus_producer.sinkconfig import SinkConfig

_PROBE_S = 0.2
OVERTIME_S = 15.0
"""How much longer than asked an acquisition may take: its process was killed, say, or its board away."""


class Parts:
    """The child processes of one data folder, none of them started; `data` is made where it is missing."""

    def __init__(
        self,
        config: Config,
        data: Path,
        *,
        dsn: str | None = None,
        duration_s: float | None = None,
        key_files: Mapping[str, Path] | None = None,
    ) -> None:
        self.logs = data / "logs"
        path = self.logs / "config.json"
        write_config(config, path)
        files.make_folder(data / "journal")
        served = config.gateway
        self.identity = Identity(stack=uuid.uuid4().hex)
        """What its gateway answers to, and its sinks expect: ports may come to be another stack's."""
        of_this_start = {"DTOLBUS_STACK": self.identity.stack}
        key_files = key_files or {}
        self.keys = next((load_keys(path) for path in key_files.values()), None)
        """Those with which this process asks its gateway, where that asks for some."""
        self.gateway = self._child(
            "gateway",
            _always(
                [
                    *("dtolbus_producer", "gateway", "serve", str(data), "--host", served.host),
                    *("--pub-port", str(served.pub_port), "--catchup-port", str(served.catchup_port)),
                    *("--catchup-mb-s", str(served.catchup_mb_s)),
                    *(["--require-keys"] if served.require_keys else []),
                    *(["--insecure-lan"] if served.insecure_lan else []),
                ]
            ),
            of_this_start,
        )
        self.sinks = {
            sink.name: self._child(
                f"sink-{quote(sink.name)}",
                _always(worker_arguments(sink, config, data)),
                {**of_this_start, **_own_environment(sink, dsn, key_files.get(sink.name))},
                may_fail=not config.devices,
            )
            for sink in config.sinks
        }
        """By the sink's name."""
        self.acquisitions = acquisition_children(config, data, path, self.logs, duration_s)
        """By the device's name."""

    def all(self) -> list[Child]:
        """Return all of them."""
        return [self.gateway, *self.sinks.values(), *self.acquisitions.values()]

    def _child(
        self,
        name: str,
        arguments: Callable[[], Sequence[str]],
        environment: dict[str, str],
        *,
        may_fail: bool = False,
    ) -> Child:
        return Child(ChildSpec(name, arguments, environment, may_fail=may_fail), self.logs)


def _own_environment(sink: SinkConfig, dsn: str | None, key_file: Path | None) -> dict[str, str]:
    """Return what only this sink's worker is told. A sink of another gateway has no key of this one's."""
    found = {"DTOLBUS_DSN": dsn} if sink.kind == "postgres" and dsn is not None else {}
    if key_file is not None and not {"connect", "catchup", "key"} & sink.options.keys():
        found["DTOLBUS_KEY"] = str(key_file)
    return found


def write_config(config: Config, path: Path) -> None:
    """Write what acquisitions are to read, without sinks and their passwords. Raises CannotStartError."""
    try:
        files.make_folder(path.parent)
        files.replace(path, dump_config(msgspec.structs.replace(config, sinks=())))
    except OSError as error:
        raise CannotStartError(
            f"{path} cannot be written ({error.strerror or error}): make room, or choose another folder with --data"
        ) from error


def acquisition_children(
    config: Config, data: Path, config_path: Path, logs: Path, duration_s: float | None
) -> dict[str, Child]:
    """Return a child for each device; one that is started again goes on from the runs it made before."""
    return {
        device.name: Child(
            ChildSpec(
                f"acquisition-{quote(device.name)}",
                _Acquisition(
                    [
                        *("dtolbus_producer", "producer", "run", "--config", str(config_path)),
                        *("--device", device.name, "--data", str(data)),
                    ],
                    data / "journal",
                    device.name,
                    duration_s,
                ),
                ends_by_itself=True,
            ),
            logs,
        )
        for device in config.devices
    }


class _Acquisition:
    """The arguments of an acquisition at each of its starts; none once its time is over by far."""

    def __init__(self, arguments: Sequence[str], journal: Path, device: str, duration_s: float | None) -> None:
        self._arguments = arguments
        self._journal = journal
        self._device = device
        self._duration_s = math.inf if duration_s is None else duration_s
        self._first_at: float | None = None
        self._earlier: set[str] = set()
        """Runs that were there before the first start."""

    def __call__(self) -> Sequence[str] | None:
        now = time.monotonic()
        if self._first_at is None:
            self._first_at = now
            self._earlier = run_names(self._journal, self._device)
            return self._arguments
        if now - self._first_at > self._duration_s + OVERTIME_S:
            return None
        newest = newest_runs(self._journal, self._device, self._earlier)
        return [*self._arguments, *(word for run_id in newest for word in ("--goes-on-from", run_id))]


def first_screen(config: Config, data: Path) -> list[str]:
    """Return what runs and where the data goes."""
    devices = [
        f"{device.name} ({device.board}): {', '.join(f'{task.name} ({task.kind})' for task in device.tasks)}"
        for device in config.devices
    ]
    sinks = [f"{sink.name} → {place_of(sink, data)}" for sink in config.sinks]
    served = config.gateway
    return [
        f"boards   {'; '.join(devices) or 'none: the sinks catch up with the journal'}",
        f"journal  {data / 'journal'}",
        f"sinks    {'; '.join(sinks)}",
        f"counts   records: a block, or a poll; lag: records not stored yet; commits: {commits(config)}",
        f"bus      tcp://{served.host}:{served.pub_port}, catch-up :{served.catchup_port}; logs in {data / 'logs'}; "
        f"Ctrl-C ends, drains and verifies",
        *_keys_line(served, data),
    ]


def _keys_line(served: GatewayConfig, data: Path) -> list[str]:
    guarded = served.protection()
    if guarded == "loopback":
        return []
    if guarded == "none":
        return [f"WARNING  {insecure(served.host)}"]
    return [f"keys     asked of everybody; `dtolbus keys new NAME --data {data}` makes one for another machine"]


def commits(config: Config) -> str:
    """Return how often the sinks commit what they have, for people who watch the lag of one."""
    by_age: dict[float, list[str]] = {}
    for sink in config.sinks:
        by_age.setdefault(batch_age_s(sink), []).append(sink.name)
    return ", ".join(f"{' and '.join(names)} every {age_s:g} s" for age_s, names in sorted(by_age.items()))


def with_ports(gateway: GatewayConfig) -> GatewayConfig:
    """Return the gateway's configuration with free ports in the place of 0."""
    with ExitStack() as held:
        free = []
        for _ in range(2):
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            free.append(probe.getsockname()[1])
    return msgspec.structs.replace(
        gateway, pub_port=gateway.pub_port or free[0], catchup_port=gateway.catchup_port or free[1]
    )


def check_ports(gateway: GatewayConfig) -> None:
    """Raise CannotStartError where a port is taken; checked before any sink could talk to whoever has it."""
    address = bind_address(gateway.host)
    problem = host_problem(address)
    if problem is not None:
        raise CannotStartError(problem)
    for option, port in (("--pub-port", gateway.pub_port), ("--catchup-port", gateway.catchup_port)):
        problem = port_problem(address, port)
        if problem is not None:
            raise CannotStartError(f"port {port} is {problem}, or choose another with {option}")


def key_files(config: Config, data: Path) -> dict[str, Path]:
    """Return the key files of the stack's own sinks by their names, made where they are missing; none where not needed.

    Raises CannotStartError.
    """
    if config.gateway.protection() != "keys":
        return {}
    ring = KeyRing(data)
    try:
        return {sink.name: ring.of_sink(sink.name) for sink in config.sinks}
    except OSError as error:
        raise CannotStartError(f"{error.filename}: the sinks' keys cannot be had: {error.strerror or error}") from error


def gateway_answers(gateway: GatewayConfig, expected: Identity, keys: Keys | None = None) -> bool:
    """Return whether it is the expected gateway that answers a Hello there."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealer = connected(context, zmq.DEALER, gateway.urls()[1], keys=keys)
    try:
        dealer.send_multipart(encode(Hello(worker="", expects=expected)), zmq.NOBLOCK)
        if not dealer.poll(round(_PROBE_S * 1000)):
            return False
        answer = decode(dealer.recv_multipart())
        return isinstance(answer, Welcome) and answer.serves.meets(expected)
    except WireError:
        return False
    finally:
        dealer.close(linger=0)
        context.term()


def _always(arguments: Sequence[str]) -> Callable[[], Sequence[str]]:
    return lambda: arguments
