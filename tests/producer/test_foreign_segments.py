"""A segment, or a record, that is another run's: a gap that says so, never sent under a name that it does not have."""

import shutil
from pathlib import Path

import msgspec
import pytest
from tests.protocol.specimens import block, block_run, reading, reading_run

from dtolbus.chunks import encode_record
from dtolbus.framing import encode_file_header
from dtolbus.records import Gap, Record, RunInfo
from dtolbus.runs import RunFolder, run_path
from dtolbus_producer.journal import RunWriter

OWN, OTHER = (block_run(f"0190a5f4-0000-7000-8000-00000000000{number}") for number in (1, 2))
READINGS = reading_run("0190a5f4-0000-7000-8000-000000000003")


def written(journal: Path, run: RunInfo, count: int = 3) -> Path:
    writer = RunWriter(journal, run)
    for index in range(count):
        writer.append(block(run, index) if run.kind == "blocks" else reading(run, index))
    writer.close()
    return run_path(journal, run.device, run.task, run.run_id)


def read(path: Path) -> list[Record | Gap]:
    with RunFolder(path) as folder:
        return [*folder.records(0, folder.head()), *folder.records(0, folder.head())]


def test_a_segment_of_another_run_is_a_gap_each_time_it_is_asked_for(tmp_path: Path) -> None:
    own, other = written(tmp_path, OWN), written(tmp_path, OTHER)
    shutil.copy(other / f"{0:012d}.dt-raw", own / f"{0:012d}.dt-raw")
    cause = f"the segment cannot be read: it is of the run {OTHER.run_id} of dt9806/vibration"
    assert read(own) == [Gap(0, 3, cause), Gap(0, 3, cause)]


@pytest.mark.parametrize("foreign", [{"run_id": OWN.run_id}, {"device": "other"}, {"reading_index": 7}])
def test_a_reading_of_another_run_is_a_gap_and_the_others_are_read(foreign: dict[str, object], tmp_path: Path) -> None:
    path = written(tmp_path, READINGS)
    records = [reading(READINGS, index) for index in range(3)]
    chunks = [encode_file_header(READINGS)]
    for index, record in enumerate(records):
        changed = msgspec.structs.replace(record, **foreign) if index == 1 else record
        chunk = [bytes(part) for part in encode_record(changed, index)]
        if index == 1 and "reading_index" in foreign:
            continue
        chunks += chunk
    (path / f"{0:012d}.dt-readings").write_bytes(b"".join(chunks))
    found = read(path)[:3]
    assert (found[0], found[2]) == (records[0], records[2])
    assert isinstance(found[1], Gap)
    assert (found[1].from_index, found[1].to_index) == (1, 2)
