"""Anchors of the clock in journals and messages: new ends and old ones read each other."""

import json
import struct
from typing import Any

import msgspec
import pytest
from tests.protocol.specimens import block, block_run

from dtolbus import wire
from dtolbus.chunks import decode_record, encode_record
from dtolbus.framing import LENGTH, file_header_for, parse_chunk_header
from dtolbus.records import Anchor, Clock
from dtolbus.runs import RunFile
from dtolbus.wire import RunRecord, decode, encode

RUN = block_run()
ANCHOR = Anchor(10, 20_000_001, 1_772_366_400_020_000_001, 310_000)


@pytest.mark.parametrize("anchor", [ANCHOR, None])
def test_a_block_keeps_its_anchor_in_the_journal_and_on_the_wire(anchor: Anchor | None) -> None:
    known = block(RUN, 1, anchor=anchor)
    header, payload = encode_record(known, 1)
    read = decode_record(file_header_for(RUN), parse_chunk_header(bytes(header)[LENGTH.size :]), payload)
    received = decode(encode(RunRecord(RUN, known)))

    assert read.anchor == anchor  # type: ignore[union-attr]
    assert isinstance(received, RunRecord)
    assert received.record.anchor == anchor  # type: ignore[union-attr]


def test_a_reader_of_version_2_finds_its_keys_as_they_were_and_one_more() -> None:
    def keys(anchor: Anchor | None) -> dict[str, Any]:
        header = bytes(encode_record(block(RUN, 1, anchor=anchor), 1)[0])
        (length,) = struct.unpack_from("<I", header)
        assert length == len(header) - 4
        found: dict[str, Any] = json.loads(header[4:])
        assert list(found)[-1] == "checksum"
        del found["checksum"]
        return found

    assert keys(ANCHOR) == {**keys(None), "anchor": list(msgspec.structs.astuple(ANCHOR))}


class OldBlockHeader(msgspec.Struct, frozen=True, array_like=True):
    """A block's header as it was before anchors."""

    version: int
    kind: int
    run: msgspec.Raw
    index: int
    first_sample: int
    t_mono_ns: int
    clock: Clock
    arrays: tuple[tuple[str, tuple[int, ...]], ...]
    status_of: tuple[str, ...] = ()
    read_started_ns: int | None = None
    read_finished_ns: int | None = None
    error: msgspec.Raw | None = None


def test_an_older_receiver_reads_a_message_with_an_anchor_and_we_read_its_without() -> None:
    frames = [bytes(frame) for frame in encode(RunRecord(RUN, block(RUN, 1, anchor=ANCHOR)))]
    old = msgspec.msgpack.decode(frames[1][: -wire._DIGEST_BYTES], type=OldBlockHeader)
    assert old.index == 1

    received = decode(wire._sealed(frames[0], msgspec.msgpack.encode(old), *frames[2:]))
    assert isinstance(received, RunRecord)
    assert received.record.index == 1
    assert received.record.anchor is None  # type: ignore[union-attr]


def test_a_run_that_ended_before_there_was_a_clock_in_its_file_is_read() -> None:
    old = msgspec.json.decode(msgspec.json.encode(RunFile(RUN, "ended", 3, 30, 4096)))
    del old["clock"]
    assert msgspec.convert(old, RunFile) == RunFile(RUN, "ended", 3, 30, 4096)
