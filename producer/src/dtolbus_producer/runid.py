"""Run ids: UUIDv7 (RFC 9562, section 5.7), so that the runs of a folder sort by age."""

import secrets
import time
import uuid


def new_run_id(unix_ms: int | None = None) -> str:
    """Return a UUIDv7 as text, of now or of the given instant (ms since 1970 UTC)."""
    stamp_ms = time.time_ns() // 1_000_000 if unix_ms is None else unix_ms
    value = (stamp_ms & (1 << 48) - 1) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))
