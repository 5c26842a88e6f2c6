"""`python -m farthing.clients.cli` is the `farthing` command."""

from farthing.clients.cli import main

main()
