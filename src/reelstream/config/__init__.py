"""Configuration: YAML files and arguments, checked against frozen dataclasses."""

from reelstream.config.loader import dump, load

__all__ = ["dump", "load"]
