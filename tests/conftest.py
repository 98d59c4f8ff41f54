"""For all tests: nothing asserts on wall time, hypothesis neither."""

from __future__ import annotations

import signal

from hypothesis import settings

settings.register_profile("reelstream", deadline=None)
settings.load_profile("reelstream")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has started the tests in its background; those that press Ctrl-C need it to be heard.
    signal.signal(signal.SIGINT, signal.default_int_handler)
