"""What users of the library, and we, test with: checks of exactness, contracts, fakes and strategies.

```
order, reading, ways, resume        `check_exact_resume`: any dataset, interrupted and resumed
ranks, wire                         `check_ranks`: any number of ranks, and what the Hub has sent
fakes, packing                      a clock, a sink, files in memory, archives, a Hub with a dataset
contracts                           what holds for every implementation of a protocol; needs pytest
strategies                          what hypothesis draws; needs hypothesis
```

Importing this package imports neither pytest nor hypothesis.
"""

from reelstream.testing.fakes import SMALL_SAMPLE, FakeClock, MemorySource, Recorder, SampleHub, sample_hub
from reelstream.testing.order import ExactnessError, SeenSample, compare_orders, content_digest
from reelstream.testing.packing import media_bytes, pack_tar, pack_tar_gz, pack_zip
from reelstream.testing.ranks import MakeRank, RanksReport, SharedDataset, check_ranks
from reelstream.testing.reading import MakeDataset, ResumableDataset
from reelstream.testing.resume import ALL_WAYS, ExactnessReport, check_exact_resume
from reelstream.testing.ways import Way
from reelstream.testing.wire import archive_ranges, overlapping_bytes

__all__ = [
    "ALL_WAYS",
    "SMALL_SAMPLE",
    "ExactnessError",
    "ExactnessReport",
    "FakeClock",
    "MakeDataset",
    "MakeRank",
    "MemorySource",
    "RanksReport",
    "Recorder",
    "ResumableDataset",
    "SampleHub",
    "SeenSample",
    "SharedDataset",
    "Way",
    "archive_ranges",
    "check_exact_resume",
    "check_ranks",
    "compare_orders",
    "content_digest",
    "media_bytes",
    "overlapping_bytes",
    "pack_tar",
    "pack_tar_gz",
    "pack_zip",
    "sample_hub",
]
