"""`python -m dtolbus`."""

from dtolbus.cli import main

main()
