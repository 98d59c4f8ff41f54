"""The way to the Hub and back: repositories pinned and listed, files read in ranges that survive a bad network.

The only package that imports `httpx2` and `huggingface_hub`. Metadata and ranges go through one small client of our
own: `HfApi` asks without time-outs and waits where it cannot be called off, and its client is global.
"""

from reelstream.transport.hub import HubClient
from reelstream.transport.lines import Timeouts
from reelstream.transport.ranges import RemoteFile
from reelstream.transport.retry import RetryPolicy

__all__ = ["HubClient", "RemoteFile", "RetryPolicy", "Timeouts"]
