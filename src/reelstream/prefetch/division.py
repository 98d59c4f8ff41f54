"""How a node's disk budget is divided: what all clips may take, what each rank's do, and what of it may stay.

The budget is a node's. Catalog, indexes, checkpoints and logs come off first; what is left is the *clip budget*, which
the node's ranks share equally, as they share its lanes. The limits of windows follow from the whole of it, so that the
order is the same for every number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from reelstream.cache import DiskBudget, KeepLimits, Room
from reelstream.cache.budget import BLOCK_BYTES, block_bytes_of
from reelstream.catalog import Catalog
from reelstream.errors import BudgetTooSmallError
from reelstream.prefetch.options import StreamOptions
from reelstream.prefetch.state import EpochSettings
from reelstream.prefetch.together import Together
from reelstream.units import format_bytes

# Below this nothing works: a lane could not hold one block.
LEAST_CLIP_BUDGET_BYTES = 1 << 20


class ClipDivision:
    """The clip budget of one run, agreed on by all ranks when it is first needed.

    Args:
        options: What to stream.
        budget: The node's, as this rank books it.
        account: Of clips; where room is set aside for it, that is the clip budget.
        folder: Where clips lie.
        tidy: Called before the clip budget is measured: removes what nobody uses.
        together: The ranks.
    """

    def __init__(
        self,
        options: StreamOptions,
        budget: DiskBudget,
        *,
        account: str,
        folder: Path,
        tidy: Callable[[], None],
        together: Together,
    ) -> None:
        self._options = options
        self._budget = budget
        self._account = budget.account(account)
        self._folder = folder
        self._tidy = tidy
        self._together = together
        self._clip_budget_bytes: int | None = None

    @property
    def clip_budget_bytes(self) -> int:
        """What all clips of a node may take on disk: the budget less all that is reserved when this is first asked for.

        All ranks must ask at the same time.

        Raises:
            BudgetTooSmallError: Where nothing can work with what is left.
        """
        if self._clip_budget_bytes is None:
            # The first rank of each node books what is the node's; checkpoints and logs lie on one node only.
            measured = self._together.leaving(self._measure)
            self._clip_budget_bytes = min(self._together.tell("clip budget", measured))
        return self._clip_budget_bytes

    @property
    def share_bytes(self) -> int:
        """What this rank's clips may take on disk."""
        return self.clip_budget_bytes // self._together.place.local_world_size

    def _measure(self) -> int:
        self._tidy()
        clip_budget_bytes = self._account.set_aside_bytes or self._account.available_bytes
        if clip_budget_bytes < LEAST_CLIP_BUDGET_BYTES:
            used = ", ".join(
                f"{name} {format_bytes(size_bytes)}"
                for name, size_bytes in self._budget.by_account().items()
                if size_bytes
            )
            smallest_mb = self._smallest_mb(LEAST_CLIP_BUDGET_BYTES - clip_budget_bytes)
            raise BudgetTooSmallError(
                f"the disk budget of {format_bytes(self._budget.total_bytes)} leaves "
                f"{format_bytes(max(0, clip_budget_bytes))} for clips ({used})",
                f"set disk_budget to {smallest_mb}MB, or to {smallest_mb - 1}MB plus {self._options.lanes + 2} times "
                "your largest clip where that is more",
            )
        return clip_budget_bytes

    def keep_limits(self, settings: EpochSettings, catalog: Catalog, archives_bytes: int) -> KeepLimits:
        """Divide this rank's clips into those that may stay and those that come and go.

        Args:
            settings: Of the epoch.
            catalog: All clips.
            archives_bytes: Compressed size of all archives.
        """
        num_clips = int(sum(catalog.clips_in(name) * settings.spans.share_of(name) for name in catalog.subsets))
        num_clips = num_clips if settings.limit is None else min(num_clips, settings.limit)
        world_size = self._together.place.world_size
        return KeepLimits.of(
            clip_budget_bytes=self.share_bytes,
            num_lanes=settings.num_lanes // world_size,
            window_clips=settings.window_clips,
            window_bytes=self._window_bytes(settings),
            mean_clip_bytes=archives_bytes / max(1, catalog.num_clips) + block_bytes_of(self._folder) / 2,
            num_clips=-(-num_clips // world_size),
        )

    def room(self, settings: EpochSettings, limits: KeepLimits) -> Room:
        """Return the policy of this rank's part of the clip budget, at an epoch's beginning.

        Raises:
            BudgetTooSmallError: Where the epoch's windows do not fit.
        """
        window_bytes = self._window_bytes(settings)
        num_lanes = settings.num_lanes // self._together.place.world_size
        missing_bytes = window_bytes * num_lanes - self.share_bytes
        if missing_bytes > 0:
            smallest_mb = self._smallest_mb(missing_bytes * self._together.place.local_world_size)
            raise BudgetTooSmallError(
                f"{num_lanes} windows of {format_bytes(window_bytes)} do not fit the clip budget of "
                f"{format_bytes(self.share_bytes)}",
                f"this epoch began with a larger disk_budget: set it to {smallest_mb}MB or more",
            )
        return Room(
            clip_budget_bytes=self.share_bytes,
            num_lanes=num_lanes,
            window_bytes=window_bytes,
            ahead=self._options.prefetch,
            moving_bytes=limits.moving_bytes,
        )

    def _window_bytes(self, settings: EpochSettings) -> int:
        # Windows are limited in 4 KiB blocks; a file system with larger ones takes more for each clip.
        return settings.window_bytes + settings.window_clips * (block_bytes_of(self._folder) - BLOCK_BYTES)

    def _smallest_mb(self, missing_bytes: int) -> int:
        return -(-(self._budget.total_bytes + missing_bytes) // 10**6)
