from __future__ import annotations

import contextlib
import enum
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reelstream.config import dump, load
from reelstream.errors import BudgetTooSmallError, ConfigError
from reelstream.units import ByteRate, ByteSize, Seconds


class Tail(enum.StrEnum):
    SKIP = "skip"
    REPEAT = "repeat"


@dataclass(frozen=True, kw_only=True)
class Frames:
    fps: float = 1.0
    max_frames: int = 32

    def __post_init__(self) -> None:
        if self.fps <= 0:
            raise ValueError(f"fps must be above 0, not {self.fps}")


@dataclass(frozen=True, kw_only=True)
class Data:
    repo_id: str
    subsets: tuple[str, ...] = ()
    annotations: tuple[Literal["cap", "oe", "mc"], ...] = ("cap", "oe", "mc")
    revision: str | None = None
    cache_dir: Path = Path("data/stream_cache")
    disk_budget: ByteSize = 5_000_000_000
    cache_size: int = 100
    prefetch: bool = True
    tail: Tail = Tail.SKIP
    limit: int | None = None
    frames: Frames = field(default_factory=Frames)
    held_out: Frames | None = None


@dataclass(frozen=True, kw_only=True)
class Train:
    learning_rate: float = 1e-4
    batch_size: int | Literal["auto"] = 4
    bandwidth: ByteRate | None = None
    latency: Seconds = 0.0
    decoded_memory: ByteSize | Literal["auto"] = "auto"
    mixture: tuple[Frames, ...] = ()
    named: dict[str, Frames] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Run:
    data: Data
    train: Train = field(default_factory=Train)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.data.cache_size > 1000:
            raise BudgetTooSmallError("cache_size does not fit", "at least 7 GB would work")


GOOD = """
data:
  repo_id: lmms-lab/LLaVA-Video-178K
  subsets: [0_30_s_academic_v0_1, 0_30_s_nextqa]
  annotations: [oe, mc]
  disk_budget: 60MB
  tail: repeat
  frames:
    fps: 2
train:
  learning_rate: 1e-3
  bandwidth: 10MB/s
  latency: 50ms
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "demo.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def problems(folder: Path, text: str | bytes, *overrides: str) -> list[str]:
    """Return what `load` says about a file, one problem a line, the folder's name left out."""
    with pytest.raises(ConfigError) as caught:
        load(write(folder, text), overrides, Run)
    lines = str(caught.value).replace(f"{folder}/", "").split("\n")
    return [line.strip() for line in lines if not line.endswith(":")]


def test_a_file_becomes_nested_dataclasses_with_defaults_for_the_rest(tmp_path: Path) -> None:
    run = load(write(tmp_path, GOOD), [], Run)
    assert run == Run(
        data=Data(
            repo_id="lmms-lab/LLaVA-Video-178K",
            subsets=("0_30_s_academic_v0_1", "0_30_s_nextqa"),
            annotations=("oe", "mc"),
            disk_budget=60_000_000,
            tail=Tail.REPEAT,
            frames=Frames(fps=2.0),
        ),
        train=Train(learning_rate=1e-3, bandwidth=10_000_000, latency=0.05),
    )
    assert isinstance(run.data.frames.fps, float)


def test_arguments_are_laid_over_the_file_the_last_one_wins(tmp_path: Path) -> None:
    overrides = [
        "seed=1",
        "seed=7",
        "data.frames.max_frames=8",
        "data.subsets=[a, b]",
        "data.cache_dir=/tmp/x y",
        "data.held_out.fps=3",
        "train.learning_rate=2.5e-5",
        "train.bandwidth=",
        "train.batch_size=auto",
        "train.decoded_memory=2 GB",
    ]
    run = load(write(tmp_path, GOOD), overrides, Run)
    assert run.seed == 7
    assert run.data.frames == Frames(fps=2.0, max_frames=8)
    assert run.data.subsets == ("a", "b")
    assert run.data.cache_dir == Path("/tmp/x y")
    assert run.data.held_out == Frames(fps=3.0)
    assert run.train.learning_rate == 2.5e-5
    assert run.train.bandwidth is None
    assert run.train.batch_size == "auto"
    assert run.train.decoded_memory == 2_000_000_000


def test_dataclasses_may_stand_in_lists_and_dicts(tmp_path: Path) -> None:
    text = "data: {repo_id: a}\ntrain: {mixture: [fps: 1, fps: 2], named: {x: {fps: 3}}, options: {a: [1]}}"
    train = load(write(tmp_path, text), [], Run).train
    assert train.mixture == (Frames(fps=1.0), Frames(fps=2.0))
    assert train.named == {"x": Frames(fps=3.0)}
    assert train.options == {"a": [1]}


def test_anchors_and_merged_sections_work(tmp_path: Path) -> None:
    text = "data:\n  repo_id: a\n  frames: &f {fps: 2, max_frames: 5}\n  held_out:\n    <<: *f\n    max_frames: 9\n"
    data = load(write(tmp_path, text), [], Run).data
    assert data.frames == Frames(fps=2.0, max_frames=5)
    assert data.held_out == Frames(fps=2.0, max_frames=9)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1e-3", 1e-3),
        ("1E3", 1e3),
        ("2.5e6", 2.5e6),
        ("-.5e-2", -0.005),
        ("3", 3.0),
        ("0.25", 0.25),
        (".inf", float("inf")),
    ],
)
def test_numbers_may_be_written_as_people_write_them(text: str, number: float, tmp_path: Path) -> None:
    path = write(tmp_path, f"data: {{repo_id: a}}\ntrain: {{learning_rate: {text}}}")
    assert load(path, [], Run).train.learning_rate == number


def test_a_date_stays_the_word_it_is(tmp_path: Path) -> None:
    path = write(tmp_path, "data: {repo_id: a, revision: 2024-10-11}")
    assert load(path, [], Run).data.revision == "2024-10-11"


def test_an_empty_section_has_its_defaults(tmp_path: Path) -> None:
    assert load(write(tmp_path, "data: {repo_id: a}\ntrain:\n"), [], Run).train == Train()


def test_a_wrong_key_names_file_line_and_the_nearest_right_one(tmp_path: Path) -> None:
    assert problems(tmp_path, GOOD.replace("disk_budget:", "chache_size:")) == [
        "demo.yaml:6: unknown key 'chache_size' in data; did you mean 'cache_size'?"
    ]


def test_a_key_in_the_wrong_section_names_the_right_one(tmp_path: Path) -> None:
    assert problems(tmp_path, GOOD + "cache_size: 5\n") == [
        "demo.yaml:14: unknown key 'cache_size'; did you mean 'data.cache_size'?"
    ]


def test_a_key_like_no_other_names_them_all(tmp_path: Path) -> None:
    assert problems(tmp_path, GOOD + "zebra: 5\n") == [
        "demo.yaml:14: unknown key 'zebra'; the keys are data, train, seed"
    ]


def test_a_wrong_argument_is_named_as_it_was_written(tmp_path: Path) -> None:
    assert problems(tmp_path, GOOD, "data.chache_size=5", "seed=x", "frames", "=3", "a..b=1", "seed.x=1", "seed=[") == [
        "argument frames: write it as key=value, or section.key=value",
        "argument =3: write it as key=value, or section.key=value",
        "argument a..b=1: write it as key=value, or section.key=value",
        "argument seed.x=1: 'x' at argument seed=x is no section that could hold 'x'",
        "argument seed=[: this is not YAML: expected the node content, but found '<stream end>'",
        "argument data.chache_size=5: unknown key 'chache_size' in data; did you mean 'cache_size'?",
        "argument seed=x: seed must be a whole number, not 'x'",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cache_size: many", "cache_size must be a whole number, not 'many'"),
        ("cache_size: '5'", "cache_size must be a whole number, not '5'"),
        ("cache_size: 5.5", "cache_size must be a whole number, not 5.5"),
        ("cache_size: true", "cache_size must be a whole number, not true"),
        ("cache_size:", "cache_size must be a whole number, not empty"),
        ("cache_size: [1]", "cache_size must be a whole number, not a list"),
        ("prefetch: 1", "prefetch must be true or false, not 1"),
        ("revision: 12", "revision must be text (in quotes, where it looks like something else), not 12"),
        ("cache_dir: [a]", "cache_dir must be text (in quotes, where it looks like something else), not a list"),
        ("tail: skp", "tail must be 'skip' or 'repeat', not 'skp'; did you mean 'skip'?"),
        ("subsets: a", "subsets must be a list, not 'a'"),
        ("frames: 3", "frames must be a section, not 3"),
        ("frames: [3]", "frames must be a section, not a list"),
        ("held_out: x", "held_out must be a section, not 'x'"),
        ("disk_budget: 5XB", "disk_budget: '5XB' is not a size; write one like '5GB'"),
        ("disk_budget: -3", "disk_budget: a size cannot be negative: -3"),
        ("disk_budget:", "disk_budget cannot be empty"),
        ("disk_budget: [1]", "disk_budget cannot be a list"),
        ("limit: x", "limit must be a whole number, not 'x'"),
    ],
)
def test_a_wrong_value_says_what_is_wanted(line: str, message: str, tmp_path: Path) -> None:
    assert problems(tmp_path, f"data:\n  repo_id: a\n  {line}\n") == [f"demo.yaml:3: data.{message}"]


def test_a_wrong_item_has_its_own_line(tmp_path: Path) -> None:
    text = "data:\n  repo_id: a\n  annotations:\n    - cap\n    - oee\n  subsets: [a, 3]\n"
    assert problems(tmp_path, text) == [
        "demo.yaml:5: data.annotations[1] must be 'cap', 'oe' or 'mc', not 'oee'; did you mean 'oe'?",
        "demo.yaml:6: data.subsets[1] must be text (in quotes, where it looks like something else), not 3",
    ]


def test_a_value_that_fits_no_branch_names_all_of_them(tmp_path: Path) -> None:
    text = "data: {repo_id: a}\ntrain:\n  batch_size: atuo\n  decoded_memory: lots\n"
    assert problems(tmp_path, text) == [
        "demo.yaml:3: train.batch_size must be a whole number or 'auto', not 'atuo'; did you mean 'auto'?",
        "demo.yaml:4: train.decoded_memory: 'lots' is not a size; write one like '5GB', or 'auto'",
    ]


def test_nested_lists_of_sections_are_checked_by_line(tmp_path: Path) -> None:
    text = "data: {repo_id: a}\ntrain:\n  mixture:\n    - fps: 1\n    - fsp: 2\n  named:\n    x: {fps: no}\n"
    assert problems(tmp_path, text) == [
        "demo.yaml:5: unknown key 'fsp' in train.mixture[1]; did you mean 'fps'?",
        "demo.yaml:7: train.named.x.fps must be a number, not false",
    ]


def test_a_contradiction_has_the_line_of_its_section(tmp_path: Path) -> None:
    assert problems(tmp_path, GOOD.replace("fps: 2", "fps: -2")) == ["demo.yaml:8: fps must be above 0, not -2.0"]


def test_a_contradiction_names_the_arguments_that_may_have_made_it(tmp_path: Path) -> None:
    assert problems(tmp_path, GOOD, "data.frames.fps=0") == [
        "demo.yaml:8 with argument data.frames.fps=0: fps must be above 0, not 0.0"
    ]
    assert problems(tmp_path, GOOD, "data.held_out.fps=0") == [
        "argument data.held_out.fps=0: fps must be above 0, not 0.0"
    ]


def test_an_error_of_ours_keeps_its_hint(tmp_path: Path) -> None:
    assert problems(tmp_path, GOOD, "data.cache_size=2000") == [
        "demo.yaml:2: cache_size does not fit (at least 7 GB would work)"
    ]


def test_missing_keys_name_their_section(tmp_path: Path) -> None:
    assert problems(tmp_path, "data:\n  cache_size: 3\n") == ["demo.yaml:1: the key 'repo_id' is missing in data"]
    assert problems(tmp_path, "seed: 3\n") == ["demo.yaml:1: the key 'data' is missing"]


def test_all_problems_come_in_one_error(tmp_path: Path) -> None:
    text = "sed: 3\ndata:\n  cache_sise: 3\n  prefetch: 7\ntrain:\n  latency: soon\n"
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text), ["train.x=1"], Run)
    head, *rest = str(caught.value).replace(f"{tmp_path}/", "").split("\n")
    assert head == "6 problems in demo.yaml and the arguments:"
    assert [line.split(": ")[0].strip() for line in rest] == [
        "demo.yaml:1",
        "demo.yaml:3",
        "demo.yaml:4",
        "demo.yaml:2",
        "demo.yaml:6",
        "argument train.x=1",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "demo.yaml: the file is empty"),
        ("# only words\n", "demo.yaml: the file is empty"),
        ("null\n", "demo.yaml: the file is empty"),
        ("- a\n", "demo.yaml:1: the file must hold `key: value` lines, not a list"),
        ("word\n", "demo.yaml:1: the file must hold `key: value` lines, not 'word'"),
        ("a: 1\nb: [1, 2\n", "demo.yaml:3: this is not YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: 1\n\tb: 2\n", "demo.yaml:2: this is not YAML: found character '\\t' that cannot start any token"),
        ("a: 1\n---\nb: 2\n", "demo.yaml:2: this is not YAML: but found another document"),
        ("a: \x07\n", "demo.yaml: this is not YAML: unacceptable character #x0007: special characters are not allowed"),
        ("a: *x\n", "demo.yaml:1: this is not YAML: found undefined alias 'x'"),
        ("seed: 1\nseed: 2\n", "demo.yaml:2: the key 'seed' is here twice; the first one is at demo.yaml:1"),
        ("seed: &s [*s]\n", "demo.yaml:1: an anchor must not contain itself"),
        ("1: 2\n", "demo.yaml:1: a key must be a word"),
        ("? [a]\n: 2\n", "demo.yaml:1: a key must be a word"),
        ("seed: !!python/name:os.system x\n", "demo.yaml:1: 'x' cannot be read: could not determine a constructor"),
        ("seed: !!python/dict {}\n", "demo.yaml:1: the tag 'tag:yaml.org,2002:python/dict' is not allowed"),
        ("<<: 3\n", "demo.yaml:1: << takes a section, or a list of sections"),
        ("a: " + "[" * 5000, "demo.yaml: its sections are nested too deeply"),
        (b"a: 1\nb: \xff\n", "demo.yaml:2: the file is not text in UTF-8"),
    ],
)
def test_a_file_that_is_no_configuration_gives_one_clear_message(
    text: str | bytes, message: str, tmp_path: Path
) -> None:
    first, *hint = problems(tmp_path, text)
    assert first.startswith(message)
    assert len(hint) <= 1


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml: there is no such file"):
        load(tmp_path / "nothing.yaml", [], Run)
    with pytest.raises(ConfigError, match="this is a folder"):
        load(tmp_path, [], Run)


def test_a_byte_order_mark_and_line_ends_of_windows_do_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path, b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load(path, [], Run).data.disk_budget == 60_000_000


def test_a_bomb_of_anchors_is_no_bomb(tmp_path: Path) -> None:
    levels = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 40)]
    assert len(problems(tmp_path, "\n".join(levels))) == 41


def test_a_dump_is_plain_and_loads_as_the_same(tmp_path: Path) -> None:
    run = load(write(tmp_path, GOOD), ["data.held_out.fps=3", "train.mixture=[{fps: 4}]", "train.named={a: {}}"], Run)
    plain = dump(run)
    assert plain["data"]["tail"] == "repeat"
    assert plain["data"]["cache_dir"] == "data/stream_cache"
    assert load(write(tmp_path, yaml.safe_dump(plain, sort_keys=False)), [], Run) == run


# PyYAML writes a "next line" that it reads back as a blank.
_TEXTS = st.text(st.characters(exclude_characters="\x85"))


@given(st.floats(min_value=0, exclude_min=True, allow_infinity=False), st.integers(0, 10**18), _TEXTS)
def test_any_values_survive_dump_and_load(
    tmp_path_factory: pytest.TempPathFactory, rate: float, budget: int, revision: str
) -> None:
    run = Run(
        data=Data(repo_id="a", disk_budget=budget, revision=revision, frames=Frames(fps=rate)),
        train=Train(learning_rate=rate),
    )
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    path.write_text(yaml.safe_dump(dump(run), allow_unicode=True), encoding="utf-8")
    assert load(path, [], Run) == run


@given(st.binary(max_size=200))
def test_no_bytes_end_in_anything_but_a_clear_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        load(path, [], Run)


@given(st.text(max_size=40))
def test_no_argument_ends_in_anything_but_a_clear_error(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    path = tmp_path_factory.getbasetemp() / "good.yaml"
    path.write_text(GOOD, encoding="utf-8")
    for argument in (value, f"seed={value}", f"data.frames={value}", f"train.options={value}", f"data.{value}"):
        with contextlib.suppress(ConfigError):
            load(path, [argument], Run)
