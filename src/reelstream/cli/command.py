"""What a command is."""

from __future__ import annotations

import argparse
from typing import Protocol


class Command(Protocol):
    """One command: a module of this package with these functions, listed in `main.COMMANDS`."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Declare the command's own arguments."""
        ...

    @staticmethod
    def run(arguments: argparse.Namespace) -> int:
        """Do it; return the exit code. Errors of `reelstream.errors` may pass: `main` prints them."""
        ...
