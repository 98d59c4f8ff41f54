"""A Hub on loopback: serves a folder of repositories to the real `huggingface_hub` client, and takes its commits.

`HubProcess` runs it beside a test or a training run; `reelstream serve` runs it by itself. Importing this package does
not import aiohttp, which only the server's process needs.

```
ranges, signing, bandwidth, rate_windows, faults, routes, listing, ...   decide: values in, values out
scanning, digests, repositories                                         read the served folder
uploads, writing                                                        change it, where it is writable
library, sending, exchange, hub, cdn, control, server                   answer, with aiohttp
process                                                                 the child process
```
"""

from reelstream.hubserver.process import HubProcess

__all__ = ["HubProcess"]
