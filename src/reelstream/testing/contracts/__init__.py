"""What holds for every implementation of a protocol: subclass a contract in a test file, and pytest runs it.

```python
from reelstream.testing.contracts import ByteSourceContract

class TestMySource(ByteSourceContract):
    def make_source(self, content):
        return MySource(content)
```

Needs pytest (`pip install 'reelstream[testing]'`).
"""

from reelstream.testing.extra import require_testing_extra

require_testing_extra("pytest", "the contracts")

import pytest  # noqa: E402 - only once it is known to be there

# Before they are imported: a failing assertion then shows its values, as in the tests of whoever uses them.
pytest.register_assert_rewrite(
    *(f"{__name__}.{name}" for name in ("byte_source", "member_stream", "outside", "ranks", "sample_stream"))
)

from reelstream.testing.contracts.byte_source import ByteSourceContract  # noqa: E402
from reelstream.testing.contracts.member_stream import MemberStreamContract  # noqa: E402
from reelstream.testing.contracts.outside import ClockContract, DiskAllowanceContract, SinkContract  # noqa: E402
from reelstream.testing.contracts.ranks import KeyValueStoreContract, RanksContract  # noqa: E402
from reelstream.testing.contracts.sample_stream import SampleStreamContract  # noqa: E402

__all__ = [
    "ByteSourceContract",
    "ClockContract",
    "DiskAllowanceContract",
    "KeyValueStoreContract",
    "MemberStreamContract",
    "RanksContract",
    "SampleStreamContract",
    "SinkContract",
]
