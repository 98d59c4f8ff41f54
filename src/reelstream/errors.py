"""The errors of Reelstream: what happened, where, and what to do next.

```
ReelstreamError
├── ConfigError (ValueError)           a setting is wrong, or contradicts another
│   └── BudgetTooSmallError            the disk budget cannot work; names the smallest that can
├── HubError (OSError)                 the Hub, or the way to it
│   ├── NetworkError                   no answer in time, or a broken one, after all retries
│   ├── NotFoundOnHubError             no such repository, revision, subset or file
│   └── AccessDeniedError              401 or 403: gated, private, or a token that is not valid
├── AnnotationError (ValueError)       an annotation file that is not what the format says
├── ArchiveError (ValueError)          an archive that is damaged, cut short, or not an archive
│   └── ArchiveChecksumError           all of it was read, and its checksum says it is not what was packed
├── DecodeError (ValueError)           a video that cannot be decoded
├── TooManyBadClipsError (RuntimeError) more clips quarantined than `max_bad_share` allows
├── TrainingDivergedError (ArithmeticError) a loss or gradient that is no number
├── DiskError (OSError)                the disk is full, read-only, or not ours to write to
├── StateError (ValueError)            a saved state that does not belong to this run
├── RankLostError (RuntimeError)        another process of the run has died, has left, or never came
├── RanksApartError (RuntimeError)      the processes of the run live, and are at different places of it
├── OutOfReachError (LookupError)      a position that this pass has left behind
└── MissingExtraError (ImportError)    an optional dependency is not installed
```

Every error survives pickling, since errors cross process borders in trainers.
"""

from __future__ import annotations

from typing import Self


class ReelstreamError(Exception):
    """Root of all errors that Reelstream raises on purpose.

    Args:
        fact: One sentence on what happened, and where.
        hint: What the user can do about it; empty where nothing can be done.
    """

    def __init__(self, fact: str, hint: str = "") -> None:
        super().__init__(fact, hint)
        self.fact = fact
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.fact}\n{self.hint}" if self.hint else self.fact

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        return type(self), (self.fact, self.hint)


class ConfigError(ReelstreamError, ValueError):
    """A setting is wrong, or contradicts another."""


class BudgetTooSmallError(ConfigError):
    """The disk budget cannot work; the message names the smallest one that can."""


class HubError(ReelstreamError, OSError):
    """The Hub, or the way to it, failed."""


class NetworkError(HubError):
    """No answer in time, or a broken one, after all retries."""


class NotFoundOnHubError(HubError):
    """No such repository, revision, subset or file."""


class AccessDeniedError(HubError):
    """The Hub answered 401 or 403: gated, private, or a token that is not valid."""


class AnnotationError(ReelstreamError, ValueError):
    """An annotation file is not what the format says."""


class ArchiveError(ReelstreamError, ValueError):
    """An archive is damaged, cut short, or not an archive."""


class ArchiveChecksumError(ArchiveError):
    """All of an archive was read, and its own checksum says that it is not what was packed."""


class DecodeError(ReelstreamError, ValueError):
    """A video cannot be decoded."""


class TooManyBadClipsError(ReelstreamError, RuntimeError):
    """More clips were quarantined than `max_bad_share` allows."""


class TrainingDivergedError(ReelstreamError, ArithmeticError):
    """A loss or a gradient is not a finite number."""


class DiskError(ReelstreamError, OSError):
    """The disk is full, read-only, or not ours to write to."""


class StateError(ReelstreamError, ValueError):
    """A saved state does not belong to this run."""


class RankLostError(ReelstreamError, RuntimeError):
    """Another process of the run, or what connects them, is gone."""


class RanksApartError(ReelstreamError, RuntimeError):
    """The processes of the run live, and are at different places of it: they would wait for each other for ever."""


class OutOfReachError(ReelstreamError, LookupError):
    """A position that this pass has left behind, or cannot reach."""


class MissingExtraError(ReelstreamError, ImportError):
    """An optional dependency is not installed."""
