"""dtolbus: a data-acquisition bus on which nothing is lost. What travels on it, and how to listen.

Each name is loaded when it is first asked for: a command starts in the time that its own part takes.
"""

from typing import TYPE_CHECKING

from dtolbus.lazily import lazily

if TYPE_CHECKING:
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

_MODULES = {
    "BlockSink": "sinks",
    "BoardError": "errors",
    "CannotStartError": "errors",
    "Channel": "records",
    "Clock": "records",
    "DaqBlock": "records",
    "DaqEvent": "records",
    "DaqReading": "records",
    "DaqSample": "records",
    "DtolSinkDependencyError": "errors",
    "DtolSinkError": "errors",
    "DtolSinkSchemaError": "errors",
    "DtolSinkWriteError": "errors",
    "DtolbusError": "errors",
    "ErrorInfo": "records",
    "Gap": "records",
    "InMemorySink": "sinks",
    "ParquetSamples": "parquet.samples",
    "RAW_FORMAT_VERSION": "framing",
    "RawBlockSink": "sinks",
    "RawCountsSink": "dtraw",
    "RawFormatError": "errors",
    "ReadingSink": "sinks",
    "Record": "records",
    "RunInfo": "records",
    "RunStatus": "records",
    "SensorStatus": "records",
    "Subscriber": "subscriber",
    "UsageError": "errors",
    "WireError": "errors",
    "block_to_long_rows": "rows",
    "block_to_rows": "rows",
    "decode": "wire",
    "encode": "wire",
    "iter_blocks": "dtraw",
    "iter_records": "dtraw",
    "pipe": "sinks",
    "pipe_blocks": "sinks",
    "read_file_header": "dtraw",
    "read_parquet": "parquet.reading",
    "reading_to_row": "rows",
}

__getattr__, __dir__ = lazily(__name__, _MODULES)
