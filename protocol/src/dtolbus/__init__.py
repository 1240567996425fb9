"""dtolbus: a data-acquisition bus on which nothing is lost. What travels on it, and how to listen."""

from dtolbus.dtraw import RawCountsSink, iter_blocks, iter_records, read_file_header
from dtolbus.errors import (
    BoardError,
    CannotStartError,
    DtolbusError,
    DtolSinkDependencyError,
    DtolSinkError,
    DtolSinkSchemaError,
    DtolSinkWriteError,
    RawFormatError,
    UsageError,
    WireError,
)
from dtolbus.framing import RAW_FORMAT_VERSION
from dtolbus.parquet.reading import read_parquet
from dtolbus.parquet.samples import ParquetSamples
from dtolbus.records import (
    Channel,
    Clock,
    DaqBlock,
    DaqEvent,
    DaqReading,
    DaqSample,
    ErrorInfo,
    Gap,
    Record,
    RunInfo,
    RunStatus,
    SensorStatus,
)
from dtolbus.rows import block_to_long_rows, block_to_rows, reading_to_row
from dtolbus.sinks import BlockSink, InMemorySink, RawBlockSink, ReadingSink, pipe, pipe_blocks
from dtolbus.subscriber import Subscriber
from dtolbus.wire import decode, encode

__all__ = [
    "RAW_FORMAT_VERSION",
    "BlockSink",
    "BoardError",
    "CannotStartError",
    "Channel",
    "Clock",
    "DaqBlock",
    "DaqEvent",
    "DaqReading",
    "DaqSample",
    "DtolSinkDependencyError",
    "DtolSinkError",
    "DtolSinkSchemaError",
    "DtolSinkWriteError",
    "DtolbusError",
    "ErrorInfo",
    "Gap",
    "InMemorySink",
    "ParquetSamples",
    "RawBlockSink",
    "RawCountsSink",
    "RawFormatError",
    "ReadingSink",
    "Record",
    "RunInfo",
    "RunStatus",
    "SensorStatus",
    "Subscriber",
    "UsageError",
    "WireError",
    "block_to_long_rows",
    "block_to_rows",
    "decode",
    "encode",
    "iter_blocks",
    "iter_records",
    "pipe",
    "pipe_blocks",
    "read_file_header",
    "read_parquet",
    "reading_to_row",
]
