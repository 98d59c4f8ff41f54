"""What is compared of a sample, and how the first difference of two orders is told."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reelstream.errors import ConfigError, ReelstreamError
from reelstream.types import Position

_DIGEST_HINT = (
    "leave it out of the samples, or make it of tensors, arrays, numbers, text, bytes, paths, lists and dicts"
)


class ExactnessError(ReelstreamError, AssertionError):
    """An order that should be the same is another one; says at which sample, and how."""


@dataclass(frozen=True, slots=True)
class SeenSample:
    """What is kept of a sample to compare it by: small, where the sample is large."""

    position: Position
    clip: str
    """Subset and path."""
    id: str
    digest: str
    """Of all that the sample holds, its position apart."""

    @classmethod
    def of(cls, sample: Mapping[str, Any]) -> SeenSample:
        """Look at a sample.

        Raises:
            ConfigError: Where it holds a value whose content is not known.
        """
        content = {key: value for key, value in sample.items() if key != "position"}
        return cls(
            position=Position(*sample["position"]),
            clip=f"{sample['subset']}/{sample['clip']}",
            id=str(sample["id"]),
            digest=content_digest(content),
        )

    def __str__(self) -> str:
        epoch, lane, slot = self.position
        return f"{self.clip} (id {self.id}; epoch {epoch}, lane {lane}, slot {slot}; digest {self.digest[:8]})"


def see_batch(samples: Sequence[Mapping[str, Any]]) -> list[SeenSample]:
    """Look at each sample of a batch; a `collate_fn` that can be sent to worker processes."""
    return [SeenSample.of(sample) for sample in samples]


def content_digest(value: Any) -> str:
    """Return the SHA-256, in hex, of a value made of tensors, arrays, numbers, text, bytes, paths, lists and dicts.

    Of a path the file's bytes count, not its name. Equal values have equal digests in every process.

    Raises:
        ConfigError: Where the value holds anything else.
    """
    hasher = hashlib.sha256()
    _feed(hasher, value)
    return hasher.hexdigest()


def _feed(hasher: Any, value: Any) -> None:
    kind = type(value).__name__.encode()
    if isinstance(value, torch.Tensor):
        kind = f"tensor {value.dtype} {tuple(value.shape)}".encode()
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, np.ndarray):
        kind = f"array {value.dtype} {value.shape}".encode()
        content = np.ascontiguousarray(value).tobytes()
    elif isinstance(value, bytes | bytearray | memoryview):
        kind, content = b"bytes", bytes(value)
    elif isinstance(value, Path):
        kind, content = b"file", value.read_bytes()
    elif value is None or isinstance(value, str | int | float | np.generic):
        content = repr(value).encode()
    else:
        _feed_parts(hasher, value)
        return
    hasher.update(b"%d %s %d\n" % (len(kind), kind, len(content)))
    hasher.update(content)


def _feed_parts(hasher: Any, value: Any) -> None:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {entry.name: getattr(value, entry.name) for entry in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        parts: list[Any] = [part for key in sorted(value, key=str) for part in (str(key), value[key])]
    elif isinstance(value, list | tuple):
        parts = list(value)
    else:
        raise ConfigError(f"a sample holds a {type(value).__qualname__}, which cannot be compared", _DIGEST_HINT)
    hasher.update(b"%d parts\n" % len(parts))
    for part in parts:
        _feed(hasher, part)


def compare_orders(found: Sequence[SeenSample], expected: Sequence[SeenSample], *, told: str) -> None:
    """Make sure that two orders are the same.

    Args:
        found: The order to be judged.
        expected: What it should be.
        told: Names the run that gave `found`, as the beginning of a sentence.

    Raises:
        ExactnessError: With the first difference.
    """
    if list(found) == list(expected):
        return
    place = next(
        (number for number, (one, other) in enumerate(zip(found, expected, strict=False)) if one != other),
        min(len(found), len(expected)),
    )
    where = f"sample {place + 1} of {len(expected)}"
    if place == len(found):
        raise ExactnessError(f"{told}: the order ends before {where}, {expected[place]}", "samples were lost at an end")
    if place == len(expected):
        raise ExactnessError(
            f"{told}: the order goes on after its {len(expected)} samples with {found[place]}",
            "samples were repeated, or an end was not found",
        )
    raise ExactnessError(
        f"{told}: {where} differs\n  quiet run: {expected[place]}\n  this run:  {found[place]}",
        _explain(found, expected, place),
    )


def _explain(found: Sequence[SeenSample], expected: Sequence[SeenSample], place: int) -> str:
    """Say what kind of difference it is."""
    one, other = found[place], expected[place]
    if (one.position, one.clip, one.id) == (other.position, other.clip, other.id):
        return "it is the same sample with other content"
    if (one.clip, one.id, one.digest) == (other.clip, other.id, other.digest):
        return "it is the same sample at another position of the schedule"
    if one not in expected:
        return "the quiet run never serves this sample at this position: the schedule is another one"
    distance = expected.index(one) - place
    if distance > 0:
        return f"the quiet run serves it {distance} later: samples were lost, or changed places"
    return f"the quiet run has served it {-distance} before: samples were repeated, or changed places"
