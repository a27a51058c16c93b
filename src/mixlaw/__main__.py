"""`python -m mixlaw`: the command line."""

from mixlaw.cli import main

main()
