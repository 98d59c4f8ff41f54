"""`python -m reelstream` is the command line."""

from reelstream.cli.main import entry_point

entry_point()
