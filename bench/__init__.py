"""How fast dtolbus is, as ratios: `uv run python -m bench`."""
