"""Train video-language models on datasets far bigger than your disk."""

__version__ = "0.1.0"
