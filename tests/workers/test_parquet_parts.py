"""A Parquet file goes to the disk piece by piece while it is encoded: it is there whole, or not at all."""

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dtolbus import files
from dtolbus_workers import parquet_parts

PIECE = 4096
SCHEMA = pa.schema([pa.field("value", pa.float64())])
OPTIONS = parquet_parts.writer_options(SCHEMA, None, use_dictionary=False)


def tables() -> Iterator[Any]:
    for seed in range(4):
        yield pa.table([np.random.default_rng(seed).normal(size=1000)], schema=SCHEMA)


def publish(path: Path) -> None:
    parquet_parts.publish(path, SCHEMA, tables(), {"key": "told"}, OPTIONS)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_parts, "_PIECE_BYTES", PIECE)


def noting(monkeypatch: pytest.MonkeyPatch, name: str, fail_at: int | None = None) -> list[str]:
    """Let files' function note its calls, and the one with this number fail."""
    calls: list[str] = []
    real = getattr(files, name)

    def noted(*args: Any) -> Any:
        calls.append(name)
        if len(calls) - 1 == fail_at:
            raise OSError(errno.EIO, "the medium failed")
        return real(*args)

    monkeypatch.setattr(files, name, noted)
    return calls


@pytest.mark.usefixtures("small_pieces")
def test_many_pieces_are_the_file_that_one_piece_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    appended, synced = noting(monkeypatch, "append"), noting(monkeypatch, "sync")
    publish(tmp_path / "many.parquet")
    assert len(appended) == len(synced) > 4
    monkeypatch.setattr(parquet_parts, "_PIECE_BYTES", 1 << 20)
    publish(tmp_path / "one.parquet")
    assert (tmp_path / "many.parquet").read_bytes() == (tmp_path / "one.parquet").read_bytes()
    assert pq.read_table(tmp_path / "many.parquet").equals(pa.concat_tables(tables()))
    assert parquet_parts.footer(tmp_path / "many.parquet") == {"key": "told"}


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("name", ["append", "sync"])
def test_whichever_piece_fails_nothing_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with monkeypatch.context() as patch:
        calls = noting(patch, name)
        publish(tmp_path / "counted.parquet")
    assert len(calls) > 4
    for number in range(len(calls)):
        with monkeypatch.context() as patch:
            noting(patch, name, number)
            with pytest.raises(OSError, match="the medium failed") as told:
                publish(tmp_path / "failed.parquet")
        assert told.value.errno == errno.EIO
        assert [path.name for path in tmp_path.iterdir()] == ["counted.parquet"]
    publish(tmp_path / "failed.parquet")
    assert (tmp_path / "failed.parquet").read_bytes() == (tmp_path / "counted.parquet").read_bytes()
