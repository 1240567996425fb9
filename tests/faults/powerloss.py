"""What a disk may hold after a power cut: a model of a file system, fed with the recorded calls of a process.

Assumed, and no more: fsync or fdatasync of a file that returned 0 makes its data and its length durable, not its name.
fsync of a folder makes the names in it durable, not what they lead to. A change of one name (create, link, unlink,
mkdir), or a rename, happens whole or not at all; a write never touches bytes beside its own. That is what POSIX says,
and less than ext4 and xfs do: they also keep the order of changes to names, and ext4 syncs a new file's name with it.

All else may be there or not, each by itself and in any order: of two unsynced renames the later alone; a name without
the data; a file's length without its data (zeros); of a write any of its sectors. What a failed sync should have synced
may be gone although a later sync succeeds: Linux gives the pages up as clean.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.faults.shim import Call

SECTOR = 512
FATES = ("kept", "lost", "torn", "zeros")

State = dict[str, bytes | None]
"""By path below the root: a file's content; None for a folder."""


class Draw(NamedTuple):
    """How the state after a cut is drawn."""

    name: str
    keeps_name: Callable[[bool], bool]
    """Whether a change of names that is not durable happened, given whether it is the newest of them."""
    fate: Callable[[], str]
    """What became of a change of data that is not durable: kept, lost, torn, zeros."""
    rng: random.Random


def draws(seed: int, count: int) -> Iterator[Draw]:
    """Yield six clear-cut states, then `count` drawn ones."""
    rng = random.Random(seed)
    yield Draw("all lost", lambda _: False, lambda: "lost", rng)
    yield Draw("all kept", lambda _: True, lambda: "kept", rng)
    yield Draw("the newest name alone", lambda is_newest: is_newest, lambda: "kept", rng)
    yield Draw("names without data", lambda _: True, lambda: "lost", rng)
    yield Draw("data without names", lambda _: False, lambda: "kept", rng)
    yield Draw("lengths without data", lambda _: True, lambda: "zeros", rng)
    for number in range(count):
        yield _drawn(f"drawn {seed}/{number}", random.Random(f"{seed}/{number}"))


def _drawn(name: str, rng: random.Random) -> Draw:
    share, weights = rng.choice((0.2, 0.5, 0.8)), rng.choice(((1, 1, 1, 1), (6, 1, 1, 1), (1, 6, 1, 1)))
    return Draw(name, lambda _: rng.random() < share, lambda: rng.choices(FATES, weights)[0], rng)


@dataclass
class _Change:
    """A write at an offset, or (data None) a cut to a length."""

    at: int
    data: bytes | None
    is_durable: bool = False
    is_given_up: bool = False
    """A sync of it failed: no later one makes it durable."""

    def apply(self, content: bytearray) -> None:
        end = self.at if self.data is None else self.at + len(self.data)
        if self.data is None:
            del content[end:]
        content.extend(bytes(max(0, end - len(content))))
        if self.data is not None:
            content[self.at : end] = self.data

    def apply_after_cut(self, content: bytearray, fate: str, rng: random.Random) -> None:
        if self.is_durable or fate == "kept":
            self.apply(content)
        elif fate != "lost" and self.data is not None:
            content.extend(bytes(max(0, self.at + len(self.data) - len(content))))
            for at, piece in self._sectors(rng) if fate == "torn" else ():
                if rng.random() < 0.5:
                    content[at : at + len(piece)] = piece

    def _sectors(self, rng: random.Random) -> Iterator[tuple[int, bytes]]:
        """Yield the write by sectors; one within a sector is cut anywhere."""
        data = self.data or b""
        ends = [*range(self.at + SECTOR - self.at % SECTOR, self.at + len(data), SECTOR), self.at + len(data)]
        ends = ends if len(ends) > 1 else sorted([self.at + rng.randint(0, len(data)), *ends])
        for begin, end in zip([self.at, *ends[:-1]], ends, strict=True):
            yield begin, data[begin - self.at : end - self.at]


@dataclass(eq=False)
class _File:
    base: bytearray = field(default_factory=bytearray)
    """Content that every state has, before the changes."""
    changes: list[_Change] = field(default_factory=list)

    def sync(self) -> None:
        for change in self.changes:
            change.is_durable = change.is_durable or not change.is_given_up
        while self.changes and self.changes[0].is_durable:
            self.changes.pop(0).apply(self.base)

    def give_up(self) -> None:
        for change in self.changes:
            change.is_given_up = True

    def after_cut(self, draw: Draw) -> bytes:
        content = bytearray(self.base)
        for change in self.changes:
            change.apply_after_cut(content, draw.fate(), draw.rng)
        return bytes(content)


@dataclass(eq=False)
class _Folder:
    now: dict[str, "_File | _Folder"] = field(default_factory=dict)
    durable: dict[str, "_File | _Folder"] = field(default_factory=dict)


@dataclass(eq=False)
class _Naming:
    """A change of names that happens whole or not at all: what each name leads to afterwards, if anything."""

    names: list[tuple[_Folder, str, "_File | _Folder | None"]]
    unsynced: list[_Folder]

    def apply(self, tables: dict[_Folder, dict[str, "_File | _Folder"]]) -> None:
        for folder, name, node in self.names:
            table = tables.setdefault(folder, dict(folder.durable))
            if node is None:
                table.pop(name, None)
            else:
                table[name] = node


class Disk:
    """The folder that was empty and durable when the recording began, as far as the calls have come."""

    def __init__(self, root: Path) -> None:
        self.marked = 0
        """The newest number that was told to somebody."""
        self._root_path = root
        self._root = _Folder()
        self._namings: list[_Naming] = []
        self._open: dict[tuple[int, int], _File | _Folder] = {}

    def apply(self, call: Call) -> None:
        """Take in the next call."""
        node = self._open.get((call.pid, call.a))
        if call.letter == "!":
            self.marked = call.a
        elif call.letter == "o":
            self._opened(call)
        elif call.letter == "c":
            self._open.pop((call.pid, call.a), None)
        elif call.letter in "wt":
            assert isinstance(node, _File), call
            node.changes.append(_Change(call.b, call.first if call.letter == "w" else None))
        elif call.letter == "s":
            self._synced(node)
        elif call.letter == "f":
            if isinstance(node, _File):
                node.give_up()
        else:
            self._named(call)

    def after_cut(self, draw: Draw) -> State:
        """Return what may be there if the power fails now."""
        tables: dict[_Folder, dict[str, _File | _Folder]] = {}
        newest = self._namings[-1] if self._namings else None
        for naming in self._namings:
            if not naming.unsynced or draw.keeps_name(naming is newest):
                naming.apply(tables)
        return dict(self._walk(self._root, "", tables, draw, {}))

    def now(self, path: str) -> bytes | None:
        """Return what a reader finds in the file, while the power holds; None where there is none."""
        node: _File | _Folder | None = self._root
        for part in Path(path).parts:
            node = node.now.get(part) if isinstance(node, _Folder) else None
        if not isinstance(node, _File):
            return None
        content = bytearray(node.base)
        for change in node.changes:
            change.apply(content)
        return bytes(content)

    def _walk(
        self,
        folder: _Folder,
        path: str,
        tables: dict[_Folder, dict[str, "_File | _Folder"]],
        draw: Draw,
        known: dict[_File, bytes],
    ) -> Iterator[tuple[str, bytes | None]]:
        for name, node in sorted(tables.get(folder, folder.durable).items()):
            if isinstance(node, _Folder):
                yield path + name, None
                yield from self._walk(node, f"{path}{name}/", tables, draw, known)
            elif not name.endswith("-shm"):  # SQLite's shared memory: written by mmap, made anew after a reboot
                if node not in known:
                    known[node] = node.after_cut(draw)
                yield path + name, known[node]

    def _place(self, path: bytes) -> tuple[_Folder, str]:
        *parts, name = Path(path.decode()).relative_to(self._root_path).parts
        folder = self._root
        for part in parts:
            found = folder.now[part]
            assert isinstance(found, _Folder), path
            folder = found
        return folder, name

    def _opened(self, call: Call) -> None:
        if Path(call.first.decode()) == self._root_path:
            self._open[call.pid, call.a] = self._root
            return
        folder, name = self._place(call.first)
        if call.b & 1:
            self._name((folder, name, _File()))
        node = folder.now[name]
        if call.b & 2:
            assert isinstance(node, _File), call
            node.changes.append(_Change(0, None))
        self._open[call.pid, call.a] = node

    def _named(self, call: Call) -> None:
        folder, name = self._place(call.first)
        if call.letter == "m":
            self._name((folder, name, _Folder()))
        elif call.letter == "u":
            self._name((folder, name, None))
        elif call.letter == "l":
            self._name((*self._place(call.second), folder.now[name]))
        else:
            assert call.letter == "r", call
            self._name((folder, name, None), (*self._place(call.second), folder.now[name]))

    def _name(self, *names: tuple[_Folder, str, "_File | _Folder | None"]) -> None:
        for folder, name, node in names:
            if node is None:
                folder.now.pop(name)
            else:
                folder.now[name] = node
        self._namings.append(_Naming(list(names), [folder for folder, _, _ in names]))

    def _synced(self, node: "_File | _Folder | None") -> None:
        if isinstance(node, _File):
            node.sync()
        elif isinstance(node, _Folder):
            for naming in self._namings:
                naming.unsynced = [folder for folder in naming.unsynced if folder is not node]
            while self._namings and not self._namings[0].unsynced:
                self._settle(self._namings.pop(0))

    def _settle(self, naming: _Naming) -> None:
        for folder, name, node in naming.names:
            if node is None:
                folder.durable.pop(name, None)
            else:
                folder.durable[name] = node


def materialise(state: State, place: Path) -> None:
    """Write the state into a new folder."""
    place.mkdir()
    for path, content in state.items():
        if content is None:
            (place / path).mkdir()
        else:
            (place / path).write_bytes(content)


def states(
    disk: Disk, calls: Iterable[Call], at: Iterable[int], told: Callable[[Disk], int], seed: int, count: int
) -> Iterator[tuple[int, str, int, State]]:
    """Yield (after which call, how drawn, the number told by then, the state) for cuts after each number in `at`.

    A state that was given with the same number told, or with a higher one, is not given again.
    """
    given, cuts = dict[int, int](), set(at)
    for number, call in enumerate(calls, 1):
        disk.apply(call)
        if number not in cuts:
            continue
        known = told(disk)
        for draw in draws(seed + number, count):
            state = disk.after_cut(draw)
            key = hash(tuple(state.items()))
            if given.get(key, -1) < known:
                given[key] = known
                yield number, draw.name, known, state
