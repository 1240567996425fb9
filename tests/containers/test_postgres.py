"""The suite of the PostgreSQL sinks against the server of compose.yaml."""

from tests.workers.test_postgres_destination import TestPostgresSamples

__all__ = ["TestPostgresSamples"]
