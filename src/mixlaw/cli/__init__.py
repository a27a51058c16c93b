"""The command line: one thin subcommand per step of a study."""

from mixlaw.cli.entry import main

__all__ = ["main"]
