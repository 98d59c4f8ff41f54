"""A byte-level BPE tokenizer built from the dataset's own texts, for the tiny models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from reelstream.errors import ConfigError
from reelstream.train.extra import require_train_extra, transformers_module


def build_tokenizer(
    texts: Iterable[str], *, vocabulary_size: int, special_tokens: Sequence[str], pad_token: str, end_token: str
) -> Any:
    """Return a fast tokenizer of transformers, the same for the same texts in any order of equal counts.

    Args:
        texts: What to learn merges from; read once, in one pass. May be empty: then each byte is a token.
        vocabulary_size: Most entries, special tokens included. Fewer texts give fewer.
        special_tokens: Single tokens, whatever stands around them; `pad_token` and `end_token` among them.
        pad_token: Fills short rows.
        end_token: Ends a turn.
    """
    require_train_extra("tokenizers", "transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415 - optional

    assert pad_token in special_tokens
    assert end_token in special_tokens
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - len(special_tokens),
        # All bytes, so that no text of any language is unknown.
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return _wrapped(tokenizer, special_tokens, pad_token, end_token)


def load_tokenizer(file: Path, *, special_tokens: Sequence[str], pad_token: str, end_token: str) -> Any:
    """Return the tokenizer that `tokenizer_bytes` was written from.

    Raises:
        ConfigError: Where the file is missing or not a tokenizer.
    """
    require_train_extra("tokenizers", "transformers")
    from tokenizers import Tokenizer  # noqa: PLC0415 - an optional dependency

    try:
        tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare `Exception`
        raise ConfigError(f"{file} is not a tokenizer: {error}") from error
    return _wrapped(tokenizer, special_tokens, pad_token, end_token)


def tokenizer_bytes(tokenizer: Any) -> bytes:
    """Return the contents of `tokenizer.json`."""
    return str(tokenizer.backend_tokenizer.to_str()).encode()


def _wrapped(tokenizer: Any, special_tokens: Sequence[str], pad_token: str, end_token: str) -> Any:
    fast = transformers_module().PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad_token, eos_token=end_token
    )
    fast.add_tokens(list(special_tokens), special_tokens=True)
    return fast
