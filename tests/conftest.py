"""Fixtures of all tests."""

from collections.abc import Iterator

import pytest
from tests.workers import postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The DSN of a real server's administrator."""
    with postgres.server() as dsn:
        yield dsn


@pytest.fixture
def postgres_dsn(postgres_server: str) -> Iterator[str]:
    """The DSN of a fresh database."""
    with postgres.database(postgres_server) as dsn:
        yield dsn
