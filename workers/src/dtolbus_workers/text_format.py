"""CSV and JSONL as bytes: rows of cells, and a block's samples by column. Pure: no file is opened here.

CSV is RFC 4180 in UTF-8, its lines end with LF. No value is an empty cell; text that could be taken for something else
(a number, `true`, nothing) is quoted, so that whoever honours the quotes reads back every value with its type. NaN and
infinities are `nan`, `inf`, `-inf`. Text by which a spreadsheet would begin a formula has an apostrophe before it, and
so has text that begins with one: whoever takes one away from each text cell reads back what it was.

JSONL is strict JSON; there NaN and infinities are null, and named in `sensor_status`.
"""

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from dtolbus.records import DaqBlock, Scalar
from dtolbus_workers.columns import sample_columns
from dtolbus_workers.iso import iso_texts

Column = Scalar | list[bytes]
"""A constant, or each row's cell, rendered."""

_CELL = re.compile(r'(?:"((?:[^"]|"")*)"|([^,"]*)),')
_NUMBERS_BEGIN = frozenset("0123456789+-.nNiI")
_FORMULAS = frozenset(
    "=+-@\t\r\n\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}\N{FULLWIDTH HYPHEN-MINUS}\N{FULLWIDTH COMMERCIAL AT}'"
)
"""How text begins that gets an apostrophe: OWASP, CSV Injection; and the apostrophe itself."""
_NEEDS_QUOTES = re.compile(r'[",\r\n]|^\s|\s$')


class TextFormat(ABC):
    """How rows become bytes."""

    extension: ClassVar[str]
    keeps_nonfinite: ClassVar[bool]
    """Whether NaN and infinities have a text of their own."""
    fixed_columns: ClassVar[bool]
    """Whether all rows of a file have the columns of its header."""

    @abstractmethod
    def header(self, columns: Sequence[str]) -> bytes:
        """Return what a file of these columns begins with."""

    @abstractmethod
    def cell(self, value: Scalar) -> bytes:
        """Return one cell."""

    @abstractmethod
    def glue(self, columns: Sequence[str]) -> list[bytes]:
        """Return what stands before each cell of a row, and what ends the row."""

    @abstractmethod
    def parse(self, lines: Iterable[bytes]) -> Iterator[Mapping[str, Scalar]]:
        """Yield the rows of a file's lines, each with its line end; the first is the header where there is one."""

    def row(self, row: Mapping[str, Scalar]) -> bytes:
        """Return one row."""
        *before, end = self.glue(tuple(row))
        return b"".join(part for pair in zip(before, map(self.cell, row.values()), strict=True) for part in pair) + end

    def rows(self, columns: Mapping[str, Column], count: int) -> bytes:
        """Return `count` rows by column, without a Python row for each."""
        *before, end = self.glue(tuple(columns))
        parts: list[Sequence[bytes]] = []
        same = b""
        for glue, column in zip(before, columns.values(), strict=True):
            same += glue
            if isinstance(column, list):
                parts += [[same] * count, column]
                same = b""
            else:
                same += self.cell(column)
        parts.append([same + end] * count)
        cells = [b""] * (count * len(parts))
        for place, part in enumerate(parts):
            cells[place :: len(parts)] = part
        return b"".join(cells)

    def block_rows(self, block: DaqBlock) -> bytes:
        """Return a row for each sample, channel by channel, with SAMPLE_COLUMNS; no run_id where the block has none."""
        count = block.samples_per_channel
        samples = sample_columns(block)
        run = {} if block.run_id is None else {"run_id": block.run_id}
        indexes, monos = _int_cells(samples.sample_index), _int_cells(samples.t_mono_ns)
        utcs = self._plain_texts(iso_texts(samples.t_utc_ns))
        rendered = []
        for channel, values in zip(block.channels, samples.values, strict=True):
            columns: dict[str, Column] = {
                **run,
                "device": block.device,
                "task": block.task,
                "channel": channel,
                "block_index": block.block_index,
                "sample_index": indexes,
                "t_mono_ns": monos,
                "t_utc": utcs,
                "value": self._value_cells(values),
                "unit": block.units.get(channel),
                "sensor_status": self._status_cells(values, samples.status_of(channel)),
                "error_type": block.error.type if block.error else None,
                "error_message": block.error.message if block.error else None,
            }
            rendered.append(self.rows(columns, count))
        return b"".join(rendered)

    @abstractmethod
    def _plain_texts(self, texts: list[str]) -> list[bytes]:
        """Return the cells of texts that have no odd character."""

    def _value_cells(self, values: NDArray[np.float64]) -> list[bytes]:
        if np.isfinite(values).all():
            return _cells_of(values.tolist())
        return [self.cell(value) for value in values.tolist()]

    def _status_cells(self, values: NDArray[np.float64], status: NDArray[np.int64] | None) -> Column:
        """Return each sample's status; where the format loses the value and has no status to say why, its name."""
        lost = None if self.keeps_nonfinite else ~np.isfinite(values)
        if lost is None or not lost.any():
            return None if status is None else _int_cells(status)
        given = [None] * len(values) if status is None else status.tolist()
        named = [repr(v) if gone and not s else s for v, gone, s in zip(values.tolist(), lost, given, strict=True)]
        return [self.cell(cell) for cell in named]


def _cells_of(numbers: list[float] | list[int]) -> list[bytes]:
    """Return the shortest texts that read back as the same (finite) numbers."""
    return msgspec.json.encode(numbers)[1:-1].split(b",") if numbers else []


def _int_cells(numbers: NDArray[np.int64]) -> list[bytes]:
    return _cells_of(numbers.tolist())


class CsvFormat(TextFormat):
    """Comma-separated values."""

    extension = "csv"
    keeps_nonfinite = True
    fixed_columns = True

    def header(self, columns: Sequence[str]) -> bytes:
        """Return the line of column names."""
        return self.row(dict(zip(columns, columns, strict=True)))

    def columns_of(self, header: bytes) -> tuple[str, ...]:
        """Return the columns that a header names. Raises ValueError where it is none."""
        return tuple(map(str, _csv_cells(header.decode().removesuffix("\n"))))

    def cell(self, value: Scalar) -> bytes:
        """Return one cell, quoted where it must be; of text never one that is a formula."""
        if value is None:
            return b""
        if isinstance(value, bool):
            return b"true" if value else b"false"
        if isinstance(value, int):
            return b"%d" % value
        if isinstance(value, float):
            return repr(float(value)).encode()
        if value[:1] in _FORMULAS:
            value = f"'{value}"
        if _NEEDS_QUOTES.search(value) or _unquoted(value) != value:
            return b'"' + value.replace('"', '""').encode() + b'"'
        return value.encode()

    def glue(self, columns: Sequence[str]) -> list[bytes]:
        """Return commas, and a line feed."""
        return [b"", *([b","] * (len(columns) - 1)), b"\n"]

    def parse(self, lines: Iterable[bytes]) -> Iterator[Mapping[str, Scalar]]:
        """Yield the rows; a quoted line break joins two lines."""
        rows = whole_rows(lines)
        columns = self.columns_of(next(rows, b""))
        for row in rows:
            yield dict(zip(columns, _csv_cells(row.decode().removesuffix("\n")), strict=True))

    def _plain_texts(self, texts: list[str]) -> list[bytes]:
        return [text.encode() for text in texts]


def whole_rows(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Join lines until their quotes are closed; what is left open at the end is yielded as it is."""
    held: list[bytes] = []
    is_open = False
    for line in lines:
        held.append(line)
        is_open ^= bool(line.count(b'"') % 2)
        if not is_open:
            yield b"".join(held)
            held = []
    if held:
        yield b"".join(held)


def _csv_cells(line: str) -> list[Scalar]:
    if '"' not in line:
        return [_plain(_unquoted(cell)) for cell in line.split(",")]
    cells: list[Scalar] = []
    at = 0
    for found in _CELL.finditer(line + ","):
        if found.start() != at:
            break
        text, plain = found.groups()
        cells.append(_plain(text.replace('""', '"') if text is not None else _unquoted(plain)))
        at = found.end()
    if at != len(line) + 1:
        raise ValueError(f"not a row of CSV: {line!r:.80}")
    return cells


def _plain(value: Scalar) -> Scalar:
    """Return the value of a cell without the apostrophe that keeps a spreadsheet from taking it for a formula."""
    return value[1:] if isinstance(value, str) and value[:1] == "'" else value


@lru_cache(maxsize=1 << 16)
def _unquoted(cell: str) -> Scalar:
    """Return the value of a cell without quotes."""
    if cell in ("", "true", "false"):
        return None if not cell else cell == "true"
    if cell[0] not in _NUMBERS_BEGIN:
        return cell
    for read in (int, float):
        try:
            return read(cell)
        except ValueError:
            continue
    return cell


class JsonlFormat(TextFormat):
    """A JSON object on each line."""

    extension = "jsonl"
    keeps_nonfinite = False
    fixed_columns = False

    def header(self, columns: Sequence[str]) -> bytes:
        """Return nothing: each row names its cells."""
        del columns
        return b""

    def cell(self, value: Scalar) -> bytes:
        """Return one JSON value; ints as they are, whatever their size."""
        if isinstance(value, int) and not isinstance(value, bool):
            return b"%d" % value
        if isinstance(value, float) and not math.isfinite(value):
            return b"null"
        return msgspec.json.encode(value)

    def glue(self, columns: Sequence[str]) -> list[bytes]:
        """Return the keys with their braces and commas, and a line feed."""
        keys = [msgspec.json.encode(column) + b":" for column in columns]
        return [b"{" + keys[0], *(b"," + key for key in keys[1:]), b"}\n"]

    def parse(self, lines: Iterable[bytes]) -> Iterator[Mapping[str, Scalar]]:
        """Yield the rows."""
        for line in lines:
            try:
                yield json.loads(line)
            except RecursionError as error:
                raise ValueError(f"a row is nested too deeply: {line[:60]!r}") from error

    def _plain_texts(self, texts: list[str]) -> list[bytes]:
        return [f'"{text}"'.encode() for text in texts]
