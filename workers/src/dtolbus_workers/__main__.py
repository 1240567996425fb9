"""`python -m dtolbus_workers KIND`."""

from dtolbus_workers.cli import main

main()
