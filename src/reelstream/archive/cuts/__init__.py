"""Entering a tar.gz at any byte with nothing known, and cutting it into pieces that are read independently."""
