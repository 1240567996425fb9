"""What a worker's word makes of its registration. Pure."""

from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec

from dtolbus.registrations import Registration, SinkPosition
from dtolbus.topics import name_fault, stream_name
from dtolbus.wire import Ack, Hello, RunPosition

MOST_ELSEWHERE = 10_000
"""Runs that a sink has and this journal does not, of which a registration tells: the newest."""

HasHad = Callable[[str], bool]
"""Whether the journal has a run of that id, or had it."""


def registered(
    known: Registration | None,
    hello: Hello,
    seen_utc: str,
    told_before: Collection[str] | None = (),
    has_had: HasHad = lambda run_id: True,
) -> Registration:
    """Return what stands in a sink's file after its Hello, which says what its destination has now.

    A destination may have less than it acknowledged: it was restored from a backup. `told_before` are runs that earlier
    parts of the Hello named; None while further parts are to come: what they may name stays as it is known. Of runs
    that are not this journal's, only so many are told.
    """
    is_same = known is not None and known.destination_id == hello.destination_id
    before = known.positions if known is not None and is_same else {}
    positions = {}
    for said in _readable(hello.positions):
        stream, was = _stream(said), before.get(said.run_id, SinkPosition("", 0))
        positions[said.run_id] = SinkPosition(stream or was.stream, said.next, min(was.backfilled, said.next))
    for run_id, was in before.items():
        if run_id not in positions and (told_before is None or run_id in told_before):
            positions[run_id] = was
    positions = {run_id: _marked(at, run_id, known, hello) for run_id, at in _bounded(positions, has_had).items()}
    return Registration(
        name=hello.worker,
        sink=hello.sink,
        place=hello.place,
        destination_id=hello.destination_id,
        topics=hello.topics,
        options=hello.options,
        positions=positions,
        seen_utc=seen_utc,
    )


def _marked(position: SinkPosition, run_id: str, known: Registration | None, hello: Hello) -> SinkPosition:
    """Return the position with the part of it that this journal's gateway did not see stored with samples."""
    before = None
    if known is not None and known.destination_id == hello.destination_id and known.keeps_samples:
        before = known.positions.get(run_id)
    return msgspec.structs.replace(position, summarised=position.position if before is None else before.summarised)


def is_elsewhere(known: Registration, hello: Hello) -> bool:
    """Return whether a Hello comes from another destination than the registered one, at another place.

    Another destination at the same place is one that was made anew: it begins from zero.
    """
    if known.destination_id == hello.destination_id:
        return False
    return _where(known) != _where(hello)


def _where(sink: Registration | Hello) -> tuple[str, str | None]:
    return sink.place, sink.options.get("host")


def acked(known: Registration, before: SinkPosition | None, ack: Ack, stream: str | None) -> SinkPosition | None:
    """Return how far a sink is after an acknowledgement; None where that does not count.

    `before` is how far it was, None where that is not known; `stream` is the run's as the journal has it, None of a
    run of which the journal knows nothing. A worker could name as many of these as it likes.
    """
    before = before or known.positions.get(ack.run_id)
    if stream is None and before is None:
        return None
    summarised = 0 if before is None else before.summarised
    stream = stream or _stream(ack) or ("" if before is None else before.stream)
    return SinkPosition(stream, ack.position, ack.backfilled, summarised)


def _readable(positions: Iterable[RunPosition]) -> list[RunPosition]:
    """Return those of what can be a run's id."""
    return [position for position in positions if not name_fault(position.run_id)]


def _bounded(positions: Mapping[str, SinkPosition], has_had: HasHad) -> Mapping[str, SinkPosition]:
    """Return them without the oldest that are not this journal's, where those are too many; an id tells the age."""
    if len(positions) <= MOST_ELSEWHERE:
        return positions
    elsewhere = sorted(run_id for run_id in positions if not has_had(run_id))
    left_out = set(elsewhere[: max(0, len(elsewhere) - MOST_ELSEWHERE)])
    return {run_id: position for run_id, position in positions.items() if run_id not in left_out}


def _stream(said: RunPosition | Ack) -> str:
    """Return the stream's name; empty where the worker does not know it, or says what can be none."""
    if name_fault(said.device) or name_fault(said.task):
        return ""
    return stream_name(said.device, said.task)
