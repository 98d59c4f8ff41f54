from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
import torch

from reelstream.errors import StateError
from reelstream.train.state import (
    Packed,
    load_optimizer,
    load_random_state,
    load_weights,
    pack_optimizer,
    pack_random_state,
    weights_of,
)
from train_kit import smallest_model


def through_json(packed: Packed) -> Packed:
    return Packed(tensors=packed.tensors, values=json.loads(json.dumps(packed.values)))


def test_generators_go_on_where_they_were() -> None:
    random.gauss(0, 1)
    np.random.standard_normal()  # noqa: NPY002 - the global generator is what is saved

    def draw() -> tuple[Any, ...]:
        return random.random(), random.gauss(0, 1), np.random.standard_normal(), torch.rand(3).tolist()  # noqa: NPY002

    state = through_json(pack_random_state())
    first = draw()
    draw()
    load_random_state(state)
    assert draw() == first


def test_an_optimizer_goes_on_bit_for_bit() -> None:
    def make() -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
        parameter = torch.nn.Parameter(torch.ones(5))
        return parameter, torch.optim.AdamW([parameter], lr=0.1, weight_decay=0.01)

    def step(parameter: torch.nn.Parameter, optimizer: torch.optim.Optimizer, number: int) -> None:
        parameter.grad = torch.arange(5.0) - number
        optimizer.step()

    whole, whole_optimizer = make()
    for number in range(6):
        step(whole, whole_optimizer, number)
    first, first_optimizer = make()
    for number in range(3):
        step(first, first_optimizer, number)
    second, second_optimizer = make()
    second.data.copy_(first.data)
    load_optimizer(second_optimizer, through_json(pack_optimizer(first_optimizer)))
    for number in range(3, 6):
        step(second, second_optimizer, number)
    assert torch.equal(whole, second)


def test_an_optimizer_over_other_parameters_is_refused() -> None:
    packed = pack_optimizer(torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))]))
    other = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))])
    with pytest.raises(StateError, match="other parameters"):
        load_optimizer(other, packed)


def test_tied_weights_are_saved_once_and_loaded_into_both() -> None:
    source, target = smallest_model(seed=0).model, smallest_model(seed=1).model
    weights = weights_of(source)
    assert sum(tensor.numel() for tensor in weights.values()) == sum(p.numel() for p in source.parameters())
    load_weights(target, weights)
    assert torch.equal(target.get_output_embeddings().weight, source.get_input_embeddings().weight)


def test_weights_of_another_model_are_refused_with_the_name_that_differs() -> None:
    with pytest.raises(StateError, match=r"the checkpoint lacks .*bias"):
        load_weights(torch.nn.Linear(2, 2), {"weight": torch.ones(2, 2)})
    with pytest.raises(StateError, match=r"weight is \[3, 2\] there, \[2, 2\] here"):
        load_weights(torch.nn.Linear(2, 2, bias=False), {"weight": torch.ones(3, 2)})
