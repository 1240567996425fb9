"""dtolbus."""
