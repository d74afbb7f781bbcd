"""`python -m server.cli` is `presence`."""

from server.cli import main

main()
