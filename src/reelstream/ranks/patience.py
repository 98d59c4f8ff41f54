"""How long ranks bear one another's silence."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RankPatience:
    """Seconds, in the life of ranks that wait for each other."""

    beat_s: float = 2.0
    """Each rank gives a sign of life so often."""
    survey_s: float = 1.0
    """A rank that waits looks so often at those it waits for."""
    lost_after_s: float = 40.0
    """No sign of life for so long, and a rank is lost. A call may well hold up all threads for ten seconds."""
    first_seen_within_s: float = 1800.0
    """The same before a rank's first sign: machines start minutes apart."""
    notice_s: float = 10.0
    """Whoever waits says so this often in the first minute, and once a minute then."""

    def __post_init__(self) -> None:
        if not 0 < self.beat_s < self.lost_after_s:
            raise ValueError(
                f"beat_s must be above 0 and below lost_after_s, not {self.beat_s} and {self.lost_after_s}"
            )
        if min(self.survey_s, self.first_seen_within_s, self.notice_s) <= 0:
            raise ValueError("survey_s, first_seen_within_s and notice_s must be above 0")

    @property
    def longest_gap_s(self) -> float:
        """The most that counts as silence between two looks; see `Silence`."""
        return 2 * self.beat_s + self.survey_s

    def notice_after_s(self, waited_s: float) -> float:
        """Return when, in seconds of waiting, the next notice is due after one at `waited_s`."""
        return waited_s + (self.notice_s if waited_s < 6 * self.notice_s else 6 * self.notice_s)


class Silence:
    """How long something has stayed the same, counted only while it was being looked at.

    Where two looks are far apart the one who looks was held up, and those looked at may have been so with it (a whole
    machine that slept, a job that was stopped and went on): the gap then counts as `longest_gap_s`.
    """

    def __init__(self, longest_gap_s: float) -> None:
        self._longest_gap_s = longest_gap_s
        self._value: object = None
        self._looked_at_s: float | None = None
        self.lasted_s = 0.0

    def look(self, value: object, now_s: float) -> float:
        """Note what is seen now; return the seconds for which it has not changed."""
        if self._looked_at_s is None or value != self._value:
            self.lasted_s = 0.0
        else:
            self.lasted_s += min(now_s - self._looked_at_s, self._longest_gap_s)
        self._value, self._looked_at_s = value, now_s
        return self.lasted_s
