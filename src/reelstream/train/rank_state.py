"""What each rank adds to a checkpoint: its place in the data, its figures, and where its random generators stand."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any, Self

import torch

from reelstream.ranks import RankPlace
from reelstream.train.device import seed_everything, seed_of
from reelstream.train.state import Packed, TensorMap, load_random_state, pack_random_state


@dataclass(frozen=True, slots=True, kw_only=True)
class RankState:
    """One rank's part, as it travels to the rank that writes."""

    data_state: dict[str, Any]
    run_state: dict[str, Any]
    generators: Packed

    @classmethod
    def here(cls, *, data_state: dict[str, Any], run_state: dict[str, Any]) -> Self:
        """Return this rank's part now; states are JSON values."""
        return cls(data_state=data_state, run_state=run_state, generators=pack_random_state())

    def pack(self) -> bytes:
        """Return it as bytes: JSON, some ten kB."""
        tensors = {
            name: base64.b64encode(bytes(each.numpy())).decode() for name, each in self.generators.tensors.items()
        }
        generators = {"tensors": tensors, "values": self.generators.values}
        return json.dumps(
            {"data_state": self.data_state, "run_state": self.run_state, "generators": generators}
        ).encode()

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """Return what `pack` packed."""
        value = json.loads(packed)
        generators = value["generators"]
        return cls(
            data_state=value["data_state"],
            run_state=value["run_state"],
            generators=Packed(
                tensors={name: _bytes_tensor(text) for name, text in generators["tensors"].items()},
                values=generators["values"],
            ),
        )


def _bytes_tensor(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)


def random_file(rank: int) -> str:
    """Return the name of the file of a checkpoint that holds the tensors of a rank's generators."""
    return f"random.{rank}.safetensors"


def random_files(ranks: list[RankState]) -> dict[str, TensorMap]:
    """Return the tensors of all ranks' generators by file name."""
    return {random_file(rank): state.generators.tensors for rank, state in enumerate(ranks)}


def set_generators(saved: Packed | None, *, seed: int, step: int, place: RankPlace) -> None:
    """Put this rank's generators where they were, or draw them anew.

    Args:
        saved: Where they were; None where nobody had this rank's place among as many.
        seed: Of the run.
        step: After which it goes on; with seed and rank it says where they begin.
        place: Of this rank.
    """
    if saved is not None:
        load_random_state(saved)
    else:
        seed_everything(seed_of(seed, step, place.rank))
