"""What of a Postgres connection is told on a command line beside its DSN: how it is secured."""

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from dtolbus.cli import option
from dtolbus_workers.postgres_config import TLS_MODES


def tls_options(call: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--sslmode`, `--sslrootcert`, `--sslcert` and `--sslkey`; the command gets those given as `tls`."""

    @option("--sslmode", type=click.Choice(TLS_MODES), help="As libpq's: verify-full checks the server.")
    @option("--sslrootcert", metavar="FILE", help="The CA that the server's certificate must come from.")
    @option("--sslcert", metavar="FILE", help="The certificate by which the server knows this client.")
    @option("--sslkey", metavar="FILE", help="Its key.")
    @wraps(call)
    def with_tls(
        sslmode: str | None, sslrootcert: str | None, sslcert: str | None, sslkey: str | None, **rest: Any
    ) -> Any:
        files = {"sslrootcert": sslrootcert, "sslcert": sslcert, "sslkey": sslkey}
        tls = {name: os.path.abspath(path) for name, path in files.items() if path}  # `verify` may run elsewhere
        return call(tls=tls | ({} if sslmode is None else {"sslmode": sslmode}), **rest)

    return with_tls
