"""Which kinds of boards there are, whether each can be used here, and what is connected."""

import inspect
import queue
import threading
from importlib.metadata import entry_points
from typing import Any

import msgspec

from dtolbus.errors import DtolbusError
from dtolbus_producer.boards import BOARDS, board_class, origin_of
from dtolbus_producer.boards.guarding import Foreign, words_of
from dtolbus_producer.tasks import WrongKeyError

_ENTRY_POINTS = "dtolbus.boards"
_PATIENCE_S = 10.0
"""How long a package may take to tell what is connected."""


class BoardFound(msgspec.Struct, frozen=True, kw_only=True):
    """A board that is connected, and what it can do; None where it does not tell."""

    board: str
    """What `board = …` in the configuration is to be for this one."""
    model: str
    inputs: int | None = None
    resolution_bits: int | None = None
    ranges_v: tuple[float, ...] = ()
    """Highest input at each gain, V."""
    gains: tuple[float, ...] = ()
    throughput_hz: float | None = None
    """Highest sum of the channels' rates, samples a second."""


class KindFound(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of board."""

    kind: str
    is_usable: bool
    about: str
    """What it is, or why it cannot be used and what to do."""
    lists_boards: bool = False
    """Whether something can be connected; a recording, for one, cannot."""
    boards: tuple[BoardFound, ...] = ()


def board_kinds() -> list[str]:
    """Return the kinds that `board = …` may name: ours, then those of other packages."""
    return [*BOARDS, *sorted(entry_points(group=_ENTRY_POINTS).names)]


def find_boards() -> list[KindFound]:
    """Return each kind of board with what is connected; what cannot be used says why."""
    return [find_kind(kind) for kind in board_kinds()]


def find_kind(kind: str) -> KindFound:
    """Return a kind of board with what is connected.

    A board's class may have a static method `find() -> list[BoardFound]`; it raises BoardError or CannotStartError
    where a package or a driver is missing. Whatever else its package does costs the others nothing.
    """
    answers: queue.SimpleQueue[KindFound] = queue.SimpleQueue()
    threading.Thread(target=lambda: answers.put(_found(kind)), name=f"find {kind}", daemon=True).start()
    try:
        return answers.get(timeout=_PATIENCE_S)
    except queue.Empty:
        why = f"the board {kind!r} of {origin_of(kind)} does not say within {_PATIENCE_S:g} s what is connected"
        return KindFound(kind=kind, is_usable=False, about=why)


def _found(kind: str) -> KindFound:
    foreign = Foreign(kind, origin_of(kind))
    try:
        board: Any = board_class(kind)
        about = (inspect.getdoc(board) or "").partition("\n")[0]
        if not hasattr(board, "find"):
            return KindFound(kind=kind, is_usable=True, about=about)
        found = foreign.call("find", (DtolbusError, WrongKeyError), board.find)
        boards = foreign.call("what find gave", (), _boards_in, found)
    except (DtolbusError, WrongKeyError) as error:
        return KindFound(kind=kind, is_usable=False, about=" ".join(str(error).split()))
    if boards is None:
        why = foreign.said(f"find gave {words_of(found)}, which is no list of BoardFound")
        return KindFound(kind=kind, is_usable=False, about=why)
    return KindFound(kind=kind, is_usable=True, about=about, lists_boards=True, boards=boards)


def _boards_in(found: object) -> tuple[BoardFound, ...] | None:
    """Return what was found; None where it is something else."""
    if not isinstance(found, list | tuple) or not all(isinstance(one, BoardFound) for one in found):
        return None
    try:
        return msgspec.convert(msgspec.to_builtins(found), tuple[BoardFound, ...])
    except (msgspec.MsgspecError, TypeError):
        return None


def boards_text(kinds: list[KindFound]) -> list[str]:
    """Return the kinds and their boards for people."""
    lines: list[str] = []
    for kind in kinds:
        lines.append(f"{kind.kind:<9} {'' if kind.is_usable else 'cannot be used here: '}{kind.about}")
        lines += [f"          {line}" for board in kind.boards for line in _board_lines(board)]
        if kind.lists_boards and not kind.boards:
            lines.append("          nothing is connected")
    return lines


def boards_json(kinds: list[KindFound]) -> str:
    """Return the kinds and their boards for machines."""
    return msgspec.json.format(msgspec.json.encode(kinds), indent=2).decode()


def _board_lines(board: BoardFound) -> list[str]:
    facts = [
        "" if board.inputs is None else f"{board.inputs} inputs",
        "" if board.resolution_bits is None else f"{board.resolution_bits} bit",
        "" if not board.ranges_v else f"ranges ±{', ±'.join(f'{limit:g}' for limit in board.ranges_v)} V",
        "" if not board.gains else f"gains {', '.join(f'{gain:g}' for gain in board.gains)}",
        "" if board.throughput_hz is None else f"{board.throughput_hz:,.0f} samples/s over all channels",
    ]
    return [f'board = "{board.board}": {board.model}', f"  {'; '.join(fact for fact in facts if fact)}".rstrip()]
