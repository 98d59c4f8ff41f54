"""One rank under torchrun: exchanges, dies once in the middle, exchanges again after the restart.

`ranks_torchrun_worker.py FOLDER`
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from reelstream.cancel import Cancellation
from reelstream.data.torch_ranks import find_ranks


def main() -> None:
    folder = Path(sys.argv[1])
    ranks = find_ranks()
    attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
    mine = f"{attempt}/{ranks.place.rank}".encode()
    seen = [value.decode() for value in ranks.exchange("same name in each attempt", mine, Cancellation())]
    if attempt == "0" and ranks.place.rank == 1:
        # Its values and signs of life stay in the launcher's store.
        os.kill(os.getpid(), signal.SIGKILL)
    if attempt == "0":
        ranks.exchange("never", b"", Cancellation())
    place = ranks.place
    outcome = {"seen": seen, "place": [place.rank, place.world_size, place.local_rank, place.local_world_size]}
    (folder / f"{place.rank}.json").write_text(json.dumps(outcome))
    ranks.leave("done")


if __name__ == "__main__":
    main()
