"""What users of the library, and we, test exactness with: checks, contracts, fakes and strategies.

```
order, reading, ways                what is compared; how datasets are read, interrupted and resumed
resume                              `check_exact_resume`
```

Importing this package imports neither pytest nor hypothesis.
"""

from reelstream.testing.order import ExactnessError, SeenSample, compare_orders, content_digest
from reelstream.testing.reading import MakeDataset, ResumableDataset
from reelstream.testing.resume import ALL_WAYS, ExactnessReport, check_exact_resume
from reelstream.testing.ways import Way

__all__ = [
    "ALL_WAYS",
    "ExactnessError",
    "ExactnessReport",
    "MakeDataset",
    "ResumableDataset",
    "SeenSample",
    "Way",
    "check_exact_resume",
    "compare_orders",
    "content_digest",
]
