"""`dtolbus listen`: what arrives from a gateway, its rate, lag and gaps, a line for each stream and second."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import zmq

from dtolbus.client import Endpoints
from dtolbus.connecting import connected
from dtolbus.errors import CannotStartError, WireError
from dtolbus.ranges import in_words
from dtolbus.records import DaqBlock, DaqEvent, RunInfo, ns_from_utc
from dtolbus.sequencer import Ended, Item, Missing, size_of
from dtolbus.subscriber import Subscriber
from dtolbus.topics import stream_name
from dtolbus.wire import Hello, Welcome, decode, encode

_ANSWER_MS = 500
_SILENT_S = 5.0
"""Even where nothing is recorded, a run that goes on is told of more often."""


@dataclass
class _Stream:
    """What came of one run since the last line."""

    run: RunInfo
    records: int = 0
    samples: int = 0
    bytes: int = 0
    lost: int = 0
    index: int = 0
    newest_utc_ns: int = 0
    text: str = ""
    is_over: bool = False

    def take(self, item: Item) -> str | None:
        """Count the item; return a line of its own where it deserves one."""
        name = stream_name(self.run.device, self.run.task)
        if isinstance(item, Missing):
            self.lost += item.gap.to_index - item.gap.from_index
            return f"{name}: gap {in_words(item.gap.from_index, item.gap.to_index)}: {item.gap.cause}"
        if isinstance(item, Ended):
            self.is_over = True
            return f"{name}: run {self.run.run_id} is over, {item.final} records"
        record = item.record
        self.records += 1
        self.index = record.index
        self.bytes += size_of(record)
        if isinstance(record, DaqEvent):
            return f"{name}: {record.kind}: {record.message}"
        if isinstance(record, DaqBlock):
            self.samples += record.samples_per_channel
            self.newest_utc_ns = record.t_utc_ns + round(record.samples_per_channel * record.period_ns)
            self.text = f"{len(record.channels)} channels × {record.samples_per_channel} samples"
        else:
            self.samples += 1
            self.newest_utc_ns = ns_from_utc(record.t_utc)
            self.text = "  ".join(f"{name}={value}" for name, value in list(record.values.items())[:4])
        return None

    def line(self, elapsed_s: float) -> str | None:
        """Return the stream's line, if anything came, and begin a new one."""
        if not self.records:
            return None
        lag_s = max(0.0, time.time() - self.newest_utc_ns / 1e9)
        text = (
            f"{stream_name(self.run.device, self.run.task):<24} record {self.index:>8}  "
            f"{self.samples / elapsed_s:>9.0f} samples/s  {self.bytes / elapsed_s / 1e6:>7.2f} MB/s  "
            f"lag {lag_s:>6.2f} s  lost {self.lost}  {self.text}"
        )
        self.records = self.samples = self.bytes = 0
        return text


def nothing_heard(at: Endpoints, after_s: float) -> CannotStartError:
    """Return what to say where nothing at all came from a gateway; asks whether it is its other port."""
    connect = at.connect
    if _answers(at):
        return CannotStartError(
            f"nothing heard from {connect}: that is a gateway's catch-up port; name its port of live records instead "
            f"(5601 by default), and this one with --catchup"
        )
    key = ", does it ask for a key (--key)" if at.keys is None else ""
    return CannotStartError(
        f"nothing heard from {connect} in {after_s:.0f} s: is a gateway running there, is the port right (5601 by "
        f"default){key}, does a firewall block it?"
    )


def _answers(at: Endpoints) -> bool:
    """Return whether a gateway answers a Hello at the port of live records."""
    context = zmq.Context()
    dealer = connected(context, zmq.DEALER, at.connect, keys=at.keys)
    try:
        dealer.send_multipart(encode(Hello(worker="")), zmq.NOBLOCK)
        return bool(dealer.poll(_ANSWER_MS)) and isinstance(decode(dealer.recv_multipart()), Welcome)
    except (zmq.Again, WireError):
        return False
    finally:
        dealer.close(linger=0)
        context.term()


class _Silence:
    """Tells, once, that a run goes on of which nothing is heard, not even a heartbeat, and when it is heard again."""

    def __init__(self, connect: str) -> None:
        self._connect = connect
        self._is_told = False

    def line(self, silent_s: float, goes_on: bool) -> str | None:
        is_silent = silent_s >= _SILENT_S
        if is_silent == self._is_told or (is_silent and not goes_on):
            return None
        self._is_told = is_silent
        if not is_silent:
            return f"{self._connect} is heard again"
        return (
            f"nothing heard from {self._connect} for {_SILENT_S:.0f} s: the gateway or the network is away; trying on"
        )


def listen(subscriber: Subscriber, say: Callable[[str], None], stopped: Callable[[], bool], first_s: float) -> None:
    """Say once a second what arrived, until `stopped`.

    Raises CannotStartError where nothing at all is heard in the first `first_s` seconds, and where the gateway does not
    let the subscriber in, or not any more.
    """
    streams: dict[str, _Stream] = {}
    silence = _Silence(subscriber.connect)
    begun = said = time.monotonic()
    is_quiet = True
    while not stopped():
        for item in subscriber.receive(0.2):
            is_quiet = False
            stream = streams.setdefault(item.run.run_id, _Stream(item.run))
            _say(say, stream.take(item))
        if subscriber.trouble:
            raise CannotStartError(subscriber.trouble)
        now, heard_at = time.monotonic(), subscriber.heard_at
        if heard_at is None and now - begun > first_s:
            raise nothing_heard(subscriber.endpoints, first_s)
        if is_quiet and heard_at is not None and now - begun > first_s:
            is_quiet = False
            say(f"connected to {subscriber.connect}; no record yet: nothing is recorded there now, or no --topic fits")
        if heard_at is not None:
            _say(say, silence.line(now - heard_at, any(not stream.is_over for stream in streams.values())))
        if now - said >= 1.0:
            for stream in streams.values():
                _say(say, stream.line(now - said))
            said = now
    if subscriber.heard_at is None:
        raise nothing_heard(subscriber.endpoints, time.monotonic() - begun)


def _say(say: Callable[[str], None], line: str | None) -> None:
    if line:
        say(line)
