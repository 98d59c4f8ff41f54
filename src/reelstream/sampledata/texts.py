"""What is asked and answered about a scene: templates with some variety."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from reelstream.sampledata.scene import COLOURS, COUNT_WORDS, DIRECTIONS, SHAPES, Scene

Topic = Literal["motion", "shape", "colour", "count", "check"]
OPTION_LETTERS = "ABCD"

_CAPTION_PROMPTS = (
    "Please provide a detailed description of the video, focusing on its subjects, their actions, and the background.",
    "What is happening in this video? Describe it from the beginning to the end.",
    "Can you describe what the video shows, step by step?",
    "Give a thorough account of this clip, covering objects, movement and background.",
    "Write a caption that tells someone who has not seen the video all about it.",
)
_OPENINGS = (
    "The video shows how {things} {move} across the frame, {path}.",
    "Against a dim, grainy background, {things} {move} across the frame {path}.",
    "{things_first} {move} across the frame {path}.",
    "In this clip, {things} {move} across the frame once, {path}.",
)
_DETAILS = (
    "The size and the pace stay the same throughout.",
    "The camera does not move.",
    "Nothing else moves in the scene.",
    "The backdrop is dark and softly textured, with a little grain.",
    "A small black and white pattern is seen in the upper left corner.",
)
_MOTION_CAPTION_PROMPTS = (
    "Describe the movement in the video.",
    "Describe how the shape moves.",
    "Write a short caption about the motion.",
    "Summarise what moves, and where to.",
)
_MOTION_CAPTIONS = (
    "The shape moves {direction}.",
    "It moves {direction} across the frame.",
    "A shape is moving {direction}.",
    "It keeps moving {direction}.",
)
_QUESTIONS: dict[Topic, tuple[str, ...]] = {
    "motion": (
        "In which direction does the shape move?",
        "Which way is the shape moving?",
        "Where does the shape go?",
        "What is the direction of motion?",
        "Which way does it travel across the frame?",
    ),
    "shape": (
        "What shape is shown?",
        "Which geometric figure can be seen in the video?",
        "What is the form of the moving object?",
        "What moves across the frame?",
    ),
    "colour": (
        "What is the color of the moving object?",
        "Which color does the shape have?",
        "What color stands out against the background?",
        "How is the shape colored?",
    ),
    "count": (
        "How many shapes are in the video?",
        "How many objects move across the frame?",
        "What is the number of shapes shown?",
        "Count the moving shapes. How many are there?",
    ),
    "check": (
        "Does the shape move {guess}?",
        "Is the motion in the video directed {guess}?",
        "Would you say that the object travels {guess}?",
    ),
}
_ANSWERS: dict[Topic, tuple[str, ...]] = {
    "motion": ("It moves {direction}.", "The shape moves {direction}.", "{direction_first}.", "It goes {direction}."),
    "shape": ("It is a {shape}.", "The video shows a {shape}.", "A {shape}.", "The moving object is a {shape}."),
    "colour": ("It is {colour}.", "The color is {colour}.", "{colour_first}.", "The shape is {colour}."),
    "count": ("{count_first}.", "There {be} {count}.", "The number of shapes is {count}.", "I can count {count}."),
    "check": ("{verdict}, it moves {direction}.", "{verdict}. The motion is {direction}."),
}
_PATHS = {
    "left": "from the right edge to the left",
    "right": "from the left edge to the right",
    "up": "from the bottom to the top",
    "down": "from the top to the bottom",
}
# Numbers of question and answer pairs in a conversation, and how often they occur. Where all rows are about motion, a
# second pair repeats the first one's answer, so most have one pair.
_NUM_PAIRS = (1, 2, 3, 4, 5)
_PAIR_WEIGHTS = {"all": (35, 25, 20, 12, 8), "motion": (84, 8, 4, 2, 2)}


def caption(scene: Scene, *, only_motion: bool, chance: random.Random) -> tuple[str, str]:
    """Return a request for a description, and the description."""
    if only_motion:
        return chance.choice(_MOTION_CAPTION_PROMPTS), chance.choice(_MOTION_CAPTIONS).format(direction=scene.direction)
    several = scene.count > 1
    things = f"{COUNT_WORDS[scene.count]} {scene.colour} {scene.shape}{_plural_ending(scene) if several else ''}"
    opening = chance.choice(_OPENINGS).format(
        things=things,
        things_first=things.capitalize(),
        move="move" if several else "moves",
        path=_PATHS[scene.direction],
    )
    details = chance.sample(_DETAILS, chance.randint(1, 3))
    return chance.choice(_CAPTION_PROMPTS), " ".join([opening, *details])


def open_questions(scene: Scene, *, only_motion: bool, chance: random.Random) -> list[tuple[str, str]]:
    """Return one to five pairs of question and answer; no question comes up twice in one conversation."""
    weights = _PAIR_WEIGHTS["motion" if only_motion else "all"]
    (num_pairs,) = chance.choices(_NUM_PAIRS, weights)
    if only_motion:
        questions = chance.sample(_QUESTIONS["motion"], num_pairs)
        return [(question, _answer("motion", scene, chance)) for question in questions]
    topics: list[Topic] = chance.sample(list(_QUESTIONS), num_pairs)
    return [_open_question(topic, scene, chance) for topic in topics]


def _open_question(topic: Topic, scene: Scene, chance: random.Random) -> tuple[str, str]:
    question = chance.choice(_QUESTIONS[topic])
    if topic != "check":
        return question, _answer(topic, scene, chance)
    guess = scene.direction if chance.random() < 0.5 else _other(DIRECTIONS, scene.direction, 1, chance)[0]
    verdict = "Yes" if guess == scene.direction else "No"
    return question.format(guess=guess), _answer(topic, scene, chance).format(verdict=verdict)


def _answer(topic: Topic, scene: Scene, chance: random.Random) -> str:
    count = COUNT_WORDS[scene.count]
    return chance.choice(_ANSWERS[topic]).format(
        direction=scene.direction,
        direction_first=scene.direction.capitalize(),
        shape=scene.shape,
        colour=scene.colour,
        colour_first=scene.colour.capitalize(),
        count=count,
        count_first=count.capitalize(),
        be="is" if scene.count == 1 else "are",
        verdict="{verdict}",
    )


def multiple_choice(scene: Scene, topic: Topic, *, answer_letter: str, chance: random.Random) -> tuple[str, str]:
    """Return a question with four options, and the right one as `B. left`.

    Args:
        scene: What is asked about.
        topic: Any but `check`.
        answer_letter: The letter of the right option.
        chance: Chooses the wording and the order of the other options.
    """
    answer, others = _CHOICES[topic](scene, chance)
    options = list(others)
    options.insert(OPTION_LETTERS.index(answer_letter), answer)
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip(OPTION_LETTERS, options, strict=True))
    return f"{chance.choice(_QUESTIONS[topic])}\nOptions:\n{listed}", f"{answer_letter}. {answer}"


def _choice(values: Sequence[str], value_of: Callable[[Scene], str]) -> Callable[..., tuple[str, list[str]]]:
    def choose(scene: Scene, chance: random.Random) -> tuple[str, list[str]]:
        return value_of(scene), _other(values, value_of(scene), len(OPTION_LETTERS) - 1, chance)

    return choose


_CHOICES: dict[Topic, Callable[..., tuple[str, list[str]]]] = {
    "motion": _choice(DIRECTIONS, lambda scene: scene.direction),
    "shape": _choice(SHAPES, lambda scene: scene.shape),
    "colour": _choice(tuple(COLOURS), lambda scene: scene.colour),
    "count": _choice(tuple(COUNT_WORDS.values()), lambda scene: COUNT_WORDS[scene.count]),
}
CHOICE_TOPICS: tuple[Topic, ...] = tuple(_CHOICES)


def _other(values: Sequence[str], right: str, number: int, chance: random.Random) -> list[str]:
    return chance.sample([value for value in values if value != right], number)


def _plural_ending(scene: Scene) -> str:
    return "es" if scene.shape == "cross" else "s"


def spread_letters(chance: random.Random) -> Iterator[str]:
    """Yield letters of right options for ever, each as often as the others, so that no letter is a good guess."""
    while True:
        yield from chance.sample(OPTION_LETTERS, len(OPTION_LETTERS))
