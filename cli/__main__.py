"""`python -m cli` is `nightshift`."""

from cli.main import main

main()
