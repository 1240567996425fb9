"""The wide layout, codes and float32: what verify sees of them, and what their readers see."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from tests.workers import committing
from tests.workers.test_verify_damage import (
    assert_seen,
    column_changed,
    footer_changed,
    later,
    parts,
    plus_one,
    rewritten,
)

from dtolbus import read_parquet
from dtolbus.parquet.wide import wide_columns
from dtolbus.records import DaqBlock, Record, RunInfo
from dtolbus_workers import certificate_text
from dtolbus_workers.certificate import Certificate, Line, compare
from dtolbus_workers.destination import RecordRefusedError, RunBatch
from dtolbus_workers.parquet_destination import ParquetDestination
from dtolbus_workers.specimens import (
    error_block,
    float_block,
    make_batch,
    make_block,
    make_event,
    make_run,
    sensor_block,
    sensor_run,
)

RUN = sensor_run()
ERROR = error_block(RUN, 0).error
FORMS = {
    "long float32": {"values": "float32"},
    "wide float64": {"layout": "wide"},
    "wide float32": {"layout": "wide", "values": "float32"},
    "wide codes": {"layout": "wide", "values": "codes"},
}


def recorded() -> list[Record]:
    blocks = [sensor_block(RUN, index) for index in (0, 1, 2, 5)]
    blocks[2] = replace(blocks[2], error=ERROR)
    return [*blocks[:3], make_event(RUN, 3), replace(error_block(RUN, 4), first_sample_index=200), blocks[3]]


def commit(folder: Path, *batches: RunBatch, **form: Any) -> None:
    committing.commit(ParquetDestination(folder, **form), *batches)


def committed(folder: Path, form: str) -> None:
    records = recorded()
    commit(folder, make_batch(RUN, 0, records[:3]), make_batch(RUN, 3, records[3:]), **FORMS[form])


def judged(folder: Path, records: list[Record], run: RunInfo = RUN) -> Line:
    line = Line("parquet", "stream", run.run_id, "ended", len(records))
    stored = ParquetDestination.stored(str(folder), {}, run)
    assert stored is not None
    compare(line, iter(records), stored, "parquet", run=run)
    return line


# ---- verify ----


@pytest.mark.parametrize("form", FORMS)
def test_what_was_stored_is_complete_and_the_certificate_says_what_was_compared(tmp_path: Path, form: str) -> None:
    committed(tmp_path, form)
    line = judged(tmp_path, recorded())
    assert line.complete, line.remarks
    told = certificate_text.as_text(Certificate([line], runs=1))[1]
    assert f"{4 * 40 * 7} values {'as float32 ' if 'float32' in form else ''}equal" in told


def second_code(column: str) -> Callable[[pa.Table], pa.Table]:
    """Change the second of a column's codes by one bit."""
    return column_changed(column, lambda cells: [cells[0], cells[1] ^ 1, *cells[2:]])


def with_a_null(table: pa.Table) -> pa.Table:
    place = table.schema.get_field_index("plain")
    cells = [None, *table.column("plain").to_pylist()[1:]]
    return table.set_column(place, table.schema.field("plain").with_nullable(True), pa.array(cells, pa.float64()))


def swapped(part: dict[str, Any]) -> None:
    first, second = part["columns"][5:7]
    first[2], second[2] = second[2], first[2]


SEEN: list[tuple[str, int, Callable[[pa.Table], pa.Table], str]] = [
    *((form, 0, column_changed("sample_index", plus_one), "block 0 differs") for form in FORMS),
    *((form, 0, later, "block 0 differs") for form in FORMS),
    *((form, 1, footer_changed(lambda part: part["run"].update(meta={})), "header is not the") for form in FORMS),
    *(
        (form, 1, footer_changed(lambda part: part["events"][0].update(message="")), "event 3 differs")
        for form in FORMS
    ),
    *((form, 1, footer_changed(lambda part: part.update(empty_blocks=[])), "1 missing") for form in FORMS),
    *((form, 0, footer_changed(lambda part: part["span"].__setitem__(1, 80)), "other samples than") for form in FORMS),
    ("long float32", 0, column_changed("value", plus_one), "block 0 differs"),
    *((form, 0, column_changed("plain", plus_one), "block 0 differs") for form in ("wide float64", "wide float32")),
    ("wide float64", 0, with_a_null, "column plain has nulls"),
    ("wide codes", 0, second_code("plain"), "block 0 differs"),
    ("wide codes", 0, second_code("pt"), "block 0 differs"),  # NaN by its status, whatever the code
    ("wide codes", 0, column_changed("pt_status", lambda cells: [*cells[:1], 0, *cells[2:]]), "block 0 differs"),
    ("wide codes", 0, column_changed("plain", lambda cells: [None, *cells[1:]]), "codes for some of its samples only"),
    ("wide codes", 0, column_changed("plain", lambda cells: [*cells[:-1], 0]), "codes for some of its samples only"),
    ("wide codes", 0, lambda table: table.drop_columns(["pt_status"]), "block 0 differs"),
    ("wide codes", 0, lambda table: table.drop_columns(["bar"]), "cannot be read on"),
    ("wide codes", 0, lambda table: table.slice(0, len(table) - 1), "not those of the blocks"),
    ("wide codes", 0, lambda table: table.slice(0, len(table) - 40), "lacks the rows of blocks"),
    ("wide codes", 0, footer_changed(lambda part: part["blocks"].pop()), "not those of the blocks"),
    ("wide codes", 0, footer_changed(lambda part: part["blocks"][0].__setitem__(2, 1)), "block 0 differs"),
    ("wide codes", 0, footer_changed(lambda part: part["blocks"][2].pop()), "neither codes nor values"),
    ("wide codes", 0, footer_changed(lambda part: part["blocks"][2][3].update(message="")), "block 2 differs"),
    ("wide codes", 0, footer_changed(swapped), "block 0 differs"),
    ("wide codes", 0, footer_changed(lambda part: part.update(values="float64")), "is of type uint16, not double"),
    ("wide codes", 0, footer_changed(lambda part: part["run"]["channels"][6].update(scale=1.0)), "header is not the"),
    ("wide float64", 0, footer_changed(lambda part: part.update(values="float32")), "is of type double, not float"),
]


@pytest.mark.parametrize(("form", "part", "change", "words"), SEEN)
def test_whatever_is_changed_is_seen(
    form: str, part: int, change: Callable[[pa.Table], pa.Table], words: str, tmp_path: Path
) -> None:
    committed(tmp_path, form)
    rewritten(parts(tmp_path, RUN)[part], change)
    assert_seen(judged(tmp_path, recorded()), words)


# ---- what lies in a part ----


def test_a_row_is_an_instant_and_a_code_has_its_calibration_with_it(tmp_path: Path) -> None:
    committed(tmp_path, "wide codes")
    first, second = parts(tmp_path, RUN)
    schema = pq.read_schema(first)
    status = ["tc_status", "pt_status", "strain_status", "level_status"]
    assert schema.names == ["sample_index", "t_utc", *RUN.channel_names, *status]
    assert schema.field("t_utc").type == pa.timestamp("ns", "UTC")
    assert {schema.field(name).type for name in RUN.channel_names} == {pa.uint16()}
    told = schema.field("bar").metadata
    assert (told[b"dtolbus.values"], told[b"dtolbus.unit"]) == (b"codes", b"bar")
    assert float(told[b"dtolbus.scale"]) == RUN.channels[5].scale
    assert float(told[b"dtolbus.offset"]) == RUN.channels[5].offset
    assert msgspec.json.decode(told[b"dtolbus.conversion"])["type"] == "polynomial"
    plain = ds.dataset([first, second], format="parquet").to_table().column("plain").to_pylist()
    codes = [block.raw_codes[6] for block in recorded() if isinstance(block, DaqBlock) and block.raw_codes is not None]
    assert plain == [*codes[0].tolist(), *codes[1].tolist(), *[None] * 40, *codes[3].tolist()]
    with duckdb.connect() as database:
        source = f"read_parquet('{tmp_path}/**/*.parquet', union_by_name=true)"
        assert database.execute(f"SELECT count(*), count(plain), max(plain) FROM {source}").fetchall() == [
            (160, 120, 65535)
        ]


def test_a_channel_has_a_status_column_in_parts_where_it_has_a_status(tmp_path: Path) -> None:
    run = make_run()
    one = make_block(run, 1, sensor_status={"ai1": [0] * 9 + [3]})
    commit(tmp_path, make_batch(run, 0, 1), make_batch(run, 1, [one, make_block(run, 2)]), layout="wide")
    first, second = parts(tmp_path, run)
    assert pq.read_schema(first).names == ["sample_index", "t_utc", "ai0", "ai1", "ai2"]
    table = pq.read_table(second, partitioning=None)
    assert table.column("ai1_status").to_pylist() == [0] * 9 + [3] + [None] * 10
    assert "ai0_status" not in table.column_names


def test_names_that_are_taken_are_numbered() -> None:
    names = ["ai0", "ai0_status", "Sample_Index", "t_utc", "ch_0", "ch_1_value", "block_index", "ai0_value"]
    columns = wide_columns(names)
    assert columns == {"ai0": "ai0", **{name: f"ch_{place}" for place, name in enumerate(names) if place}}


def test_values_beyond_float32_become_infinite_and_codes_are_about_a_byte(tmp_path: Path) -> None:
    run = msgspec.structs.replace(make_run(), dtype="float64")
    block = float_block(run, 0, [[1e300, -1e300, 0.1]] * 3)
    commit(tmp_path / "float32", make_batch(run, 0, [block]), layout="wide", values="float32")
    (path,) = parts(tmp_path / "float32", run)
    assert pq.read_table(path).column("ai0").to_pylist() == [np.inf, -np.inf, float(np.float32(0.1))]
    assert judged(tmp_path / "float32", [block], run).complete


@pytest.mark.parametrize("dtype", ["float64", "int64", "nonsense"])
def test_a_type_that_is_no_code_of_ours_is_stored_as_values(tmp_path: Path, dtype: str) -> None:
    run = msgspec.structs.replace(make_run(), dtype=dtype)
    commit(tmp_path, make_batch(run, 0, [make_block(run, 0)]), **FORMS["wide codes"])
    assert judged(tmp_path, [make_block(run, 0)], run).complete


def test_a_board_that_gives_floats_has_no_codes_and_its_values_are_stored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = msgspec.structs.replace(make_run(), dtype="float64")
    block = make_block(run, 0, codes=np.array([[0.1, np.nan]] * 3))
    with caplog.at_level(logging.INFO):
        commit(tmp_path, make_batch(run, 0, [block]), **FORMS["wide codes"])
    assert "the board gives no codes: its values are stored" in caplog.messages
    assert pq.read_schema(parts(tmp_path, run)[0]).field("ai0").type == pa.float64()
    assert judged(tmp_path, [block], run).complete


# ---- what a run keeps ----


def test_a_run_goes_on_as_it_was_begun_whatever_the_worker_is_told_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, other = make_run(number=1), make_run(number=2)
    commit(tmp_path, make_batch(run, 0, 2), **FORMS["wide codes"])
    with caplog.at_level(logging.INFO):
        commit(tmp_path, make_batch(run, 2, 2), make_batch(other, 0, 2))
    assert "runs that were begun in another form keep it" in caplog.messages
    schemas = [pq.read_schema(path).remove_metadata().names for path in parts(tmp_path, run)]
    assert schemas == [["sample_index", "t_utc", "ai0", "ai1", "ai2"]] * 2
    assert "channel" in pq.read_schema(parts(tmp_path, other)[0]).names
    for each, count in ((run, 4), (other, 2)):
        assert judged(tmp_path, [make_block(each, index) for index in range(count)], each).complete


def test_codes_need_the_wide_layout(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="codes need the layout wide"):
        ParquetDestination(tmp_path, values="codes")


@pytest.mark.parametrize(
    "change",
    [
        {"channels": ("ai0", "ai1", "other")},
        {"units": {"ai0": "V", "ai1": "V", "ai2": "mV"}},
        {"device": "other"},
        {"sensor_status": {"ai9": [0] * 10}},
    ],
)
def test_a_block_that_is_not_as_its_run_says_is_put_aside(tmp_path: Path, change: dict[str, Any]) -> None:
    run = make_run()
    odd = replace(make_block(run, 1), **change)
    with pytest.raises(RecordRefusedError, match="not of this run") as refused:
        commit(tmp_path, make_batch(run, 0, [make_block(run, 0), odd]), layout="wide")
    assert refused.value.index == 1
    commit(tmp_path, make_batch(run, 0, [make_block(run, 0), odd], put_aside={1: refused.value.reason}), layout="wide")
    line = judged(tmp_path, [make_block(run, 0), odd], run)
    assert "is put aside without need" not in str(line.remarks)


def test_a_block_made_for_a_run_that_says_otherwise_is_refused(tmp_path: Path) -> None:
    run = make_run()
    odd = make_block(make_run(channels=("ai0", "ai1", "other")), 1)
    with pytest.raises(RecordRefusedError, match="not of this run: its channels are ai0, ai1, other"):
        commit(tmp_path, make_batch(run, 0, [make_block(make_run(), 0), odd]), layout="wide")


def test_floats_given_beside_codes_are_what_is_stored(tmp_path: Path) -> None:
    run = make_run()
    plain = make_block(run, 0)
    same, other = replace(plain, data=plain.data), replace(make_block(run, 1), data=plain.data + 0.5)
    commit(tmp_path, make_batch(run, 0, [same, other]), **FORMS["wide codes"])
    table = pq.read_table(parts(tmp_path, run)[0], partitioning=None)
    assert table.column("ai0").null_count == 10
    assert table.column("ai0_value").to_pylist() == [None] * 10 + other.data[0].tolist()
    assert judged(tmp_path, [same, other], run).complete
    np.testing.assert_array_equal(read_parquet(tmp_path).data, np.concatenate([same.data, other.data], axis=1))


def test_a_block_whose_arrays_lack_samples_is_refused(tmp_path: Path) -> None:
    run = make_run()
    short = replace(make_block(run, 1), raw_codes=np.zeros((3, 1), np.uint16), data=None)
    for form in FORMS.values():
        with pytest.raises(RecordRefusedError) as refused:
            commit(tmp_path, make_batch(run, 0, [make_block(run, 0), short]), **form)
        assert refused.value.index == 1


def test_large_blocks_are_row_groups_of_their_own(tmp_path: Path) -> None:
    run = msgspec.structs.replace(make_run(channels=("ai0",)), dtype="int16")
    codes = np.arange(700_000, dtype=np.int64).astype(np.int16)[np.newaxis]
    blocks = [make_block(run, index, samples=700_000, codes=codes) for index in range(3)]
    commit(tmp_path, make_batch(run, 0, blocks), **FORMS["wide codes"])
    metadata = pq.read_metadata(parts(tmp_path, run)[0])
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [700_000, 700_000, 700_000]
    assert metadata.serialized_size < 20_000
    assert judged(tmp_path, list(blocks), run).complete
