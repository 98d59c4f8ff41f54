"""When the next push is due: values in, values out."""

from __future__ import annotations

from dataclasses import dataclass, replace

_FIRST_RETRY_S = 5.0
_LONGEST_RETRY_S = 600.0
_HURRIED_RETRY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """What has been saved and pushed so far, and what that means for the next push.

    A newer checkpoint takes the place of one that waits.
    """

    every_s: float = 0.0
    """Least seconds between the beginnings of two pushes."""
    every_checkpoints: int = 1
    saved_step: int | None = None
    """The newest checkpoint."""
    pushed_step: int | None = None
    """The newest one at the place."""
    num_waiting: int = 0
    """Checkpoints that were saved since one was last taken for a push."""
    begun_s: float | None = None
    """When the last push that succeeded, or is on its way, began."""
    retry_s: float | None = None
    """The moment to try again; None where the last push succeeded."""
    num_failures: int = 0
    """In a row."""
    hurried: bool = False
    """The run ends: what is not there yet goes at once."""

    def saved(self, step: int) -> Rhythm:
        """Return what follows a save."""
        return replace(self, saved_step=step, num_waiting=self.num_waiting + 1)

    def begun(self, now_s: float) -> Rhythm:
        """Return what follows the beginning of a push."""
        return replace(self, begun_s=now_s, num_waiting=0)

    def succeeded(self, step: int) -> Rhythm:
        """Return what follows a push."""
        return replace(self, pushed_step=step, retry_s=None, num_failures=0)

    def failed(self, now_s: float) -> Rhythm:
        """Return what follows a push that failed: waits that double, up to ten minutes."""
        wait_s = min(_LONGEST_RETRY_S, _FIRST_RETRY_S * 2.0 ** min(self.num_failures, 16))
        if self.hurried:
            wait_s = min(wait_s, _HURRIED_RETRY_S)
        return replace(self, retry_s=now_s + wait_s, num_failures=self.num_failures + 1)

    def hurry(self, now_s: float) -> Rhythm:
        """Return what follows the end of the run."""
        return replace(self, hurried=True, retry_s=None if self.retry_s is None else now_s)

    @property
    def up_to_date(self) -> bool:
        """Whether the newest checkpoint is at the place, or there is none."""
        return self.saved_step == self.pushed_step or self.saved_step is None

    def wait_s(self, now_s: float) -> float | None:
        """Return the seconds until a push is due, 0 where it is; None where nothing is to be pushed yet."""
        if self.up_to_date:
            return None
        if self.retry_s is not None:
            return max(0.0, self.retry_s - now_s)
        if self.hurried:
            return 0.0
        if self.num_waiting < self.every_checkpoints:
            return None
        return 0.0 if self.begun_s is None else max(0.0, self.begun_s + self.every_s - now_s)
