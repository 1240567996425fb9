"""How cost grows with channels, block size, subscribers, runs and a run's length: `uv run python -m bench.growth`."""
