from __future__ import annotations

from pathlib import Path

import pytest

from reelstream.errors import ConfigError
from reelstream.train.tokenizer import build_tokenizer, load_tokenizer, tokenizer_bytes

SPECIAL = ("<|endoftext|>", "<|im_end|>", "<|video_pad|>")
KEYWORDS = {"special_tokens": SPECIAL, "pad_token": "<|endoftext|>", "end_token": "<|im_end|>"}
TEXTS = ("The shape moves left.", "The shape moves right.") * 5


def test_the_same_texts_give_the_same_tokenizer_in_any_order() -> None:
    built = [
        tokenizer_bytes(build_tokenizer(texts, vocabulary_size=400, **KEYWORDS))  # type: ignore[arg-type]
        for texts in (TEXTS, TEXTS, reversed(TEXTS))
    ]
    assert built[0] == built[1] == built[2]


@pytest.mark.parametrize("text", ["The shape moves left.", "Größe 尺寸 🎬", "\x00\n\t  two  blanks ", ""])
def test_every_text_survives_the_way_there_and_back(text: str) -> None:
    tokenizer = build_tokenizer(TEXTS, vocabulary_size=400, **KEYWORDS)  # type: ignore[arg-type]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_special_tokens_are_single_and_the_vocabulary_is_bounded() -> None:
    tokenizer = build_tokenizer(TEXTS * 50, vocabulary_size=300, **KEYWORDS)  # type: ignore[arg-type]
    assert len(tokenizer("".join(SPECIAL))["input_ids"]) == 3
    assert len(tokenizer) <= 300
    assert len(tokenizer("moves")["input_ids"]) < 5


def test_without_texts_each_byte_is_a_token() -> None:
    tokenizer = build_tokenizer((), vocabulary_size=400, **KEYWORDS)  # type: ignore[arg-type]
    assert len(tokenizer("left")["input_ids"]) == 4


def test_a_saved_tokenizer_is_the_same_when_loaded(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(TEXTS, vocabulary_size=400, **KEYWORDS)  # type: ignore[arg-type]
    (tmp_path / "tokenizer.json").write_bytes(tokenizer_bytes(tokenizer))
    loaded = load_tokenizer(tmp_path / "tokenizer.json", **KEYWORDS)  # type: ignore[arg-type]
    text = "The shape moves up.<|im_end|>"
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert (loaded.pad_token_id, loaded.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)


def test_a_file_that_is_no_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path / "tokenizer.json", **KEYWORDS)  # type: ignore[arg-type]
