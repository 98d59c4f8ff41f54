"""How the ranks of a run find one another in a store where an earlier run may have left its keys.

torchrun starts the ranks of a job again on the same store, and numbers of restarts differ between machines. So a run
is told from those before it by a name that rank 0 draws, and a rank knows it for today's by its own name beside it:

```
hello/<rank>    a name that this process drew
roster          JSON: the names of all ranks, as rank 0 sees them; the first one is the run's
```

What an earlier process wrote holds no name of a process that lives now, and is so passed over.
"""

from __future__ import annotations

import json
import secrets

from reelstream.ranks.store import KeyValueStore


class Meeting:
    """One rank's part in it. All calls come from one thread.

    Attributes:
        run: The run's name, once this rank knows it; all other keys begin with it.
    """

    def __init__(self, rank: int, world_size: int, store: KeyValueStore) -> None:
        self._rank = rank
        self._store = store
        self._name = secrets.token_hex(8)
        self._roster = [self._name if other == rank else "" for other in range(world_size)]
        self._said_hello = False
        self.run: str | None = self._name if rank == 0 else None

    def step(self) -> None:
        """Do what can be done now: show up, look for the run's name, or (rank 0) tell those who have shown up.

        Raises:
            OSError: Where the store is gone.
        """
        if self._rank == 0:
            self._write_roster()
            return
        if not self._said_hello:
            self._store.set(f"hello/{self._rank}", self._name.encode())
            self._said_hello = True
        if self.run is None and self._store.check(["roster"]):
            roster = json.loads(self._store.get("roster"))
            if len(roster) == len(self._roster) and roster[self._rank] == self._name:
                self.run = roster[0]

    def _write_roster(self) -> None:
        roster = [self._name, *(self._hello_of(rank) for rank in range(1, len(self._roster)))]
        if roster != self._roster:
            self._store.set("roster", json.dumps(roster).encode())
            self._roster = roster

    def _hello_of(self, rank: int) -> str:
        key = f"hello/{rank}"
        return self._store.get(key).decode() if self._store.check([key]) else ""
