"""Commits batches to a destination: opened, and closed whatever happens."""

import asyncio

from dtolbus_workers.destination import Destination, RunBatch


def commit(destination: Destination, *batches: RunBatch) -> None:
    """Commit the batches in their order."""

    async def go() -> None:
        await destination.open()
        try:
            for batch in batches:
                await destination.commit(batch)
        finally:
            await destination.close()

    asyncio.run(go())
