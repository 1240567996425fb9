"""The options `--key` and `--server-key` of whatever connects to a gateway."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from dtolbus.cli import option
from dtolbus.errors import UsageError


def key_options(call: Callable[..., Any]) -> Callable[..., Any]:
    """Add the two options; the command gets `keys`, None where no key is given."""

    @option("--key", "key_file", type=click.Path(path_type=Path), help="This machine's key file, where a gateway asks.")
    @option("--server-key", metavar="FILE|KEY", help="The gateway's public key, where the key file has none.")
    @wraps(call)
    def with_keys(key_file: Path | None, server_key: str | None, **rest: Any) -> Any:
        if key_file is None:
            if server_key:
                raise UsageError("--server-key goes with --key FILE, which `dtolbus keys new NAME` makes")
            return call(keys=None, **rest)
        from dtolbus.keys import load_keys  # noqa: PLC0415  # zmq is heavy; --help does without

        return call(keys=load_keys(key_file, server_key), **rest)

    return with_keys
