"""What a clip shows, in the words that its text uses."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

Direction = Literal["left", "right", "up", "down"]
Shape = Literal["circle", "square", "triangle", "diamond", "cross", "ring"]

DIRECTIONS: tuple[Direction, ...] = ("left", "right", "up", "down")
SHAPES: tuple[Shape, ...] = ("circle", "square", "triangle", "diamond", "cross", "ring")
COUNT_WORDS = {1: "one", 2: "two", 3: "three", 4: "four"}
# RGB; all far brighter than any background, so that 32 x 32 pixels are enough to see the motion.
COLOURS = {
    "red": (255, 70, 60),
    "green": (60, 220, 80),
    "blue": (80, 140, 255),
    "yellow": (250, 230, 60),
    "orange": (255, 155, 40),
    "purple": (200, 100, 255),
    "pink": (255, 150, 200),
    "white": (245, 245, 245),
}

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One or several equal shapes that cross the frame once, side by side."""

    shape: Shape
    colour: str
    count: int
    direction: Direction


def deal(items: Sequence[Item], chance: random.Random) -> Iterator[Item]:
    """Yield items for ever, each as often as the others: shuffled decks, one after another."""
    while True:
        yield from chance.sample(items, len(items))


def deal_scenes(chance: random.Random, *, only_motion: bool) -> Iterator[Scene]:
    """Yield scenes for ever: directions, shapes, colours and counts are balanced, and independent of each other.

    Args:
        chance: Where the order comes from.
        only_motion: Whether each scene has a single, large shape: nothing but its direction is asked for then.
    """
    # A generator of its own for each deck: decks drawn from one would be correlated by their lengths.
    directions = deal(DIRECTIONS, random.Random(chance.random()))
    shapes = deal(SHAPES, random.Random(chance.random()))
    colours = deal(tuple(COLOURS), random.Random(chance.random()))
    counts = deal((1,) if only_motion else (1, 2, 3, 4), random.Random(chance.random()))
    while True:
        yield Scene(shape=next(shapes), colour=next(colours), count=next(counts), direction=next(directions))
