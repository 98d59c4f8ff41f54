"""For all tests: nothing asserts on wall time, hypothesis neither."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("reelstream", deadline=None)
settings.load_profile("reelstream")
