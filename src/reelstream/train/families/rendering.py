"""Conversations as text, with the places that are trained on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reelstream.train.families.base import IGNORED_LABEL, EncodedSample, PreparedClip
from reelstream.types import Messages


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatStyle:
    """How a family writes turns."""

    opening: str
    """Before the first turn."""
    turn_opening: Callable[[str, bool], str]
    """What stands before a turn's content, by role and whether the content begins with a clip."""
    assistant_lead: str
    """Before an assistant's text, and part of what the model says."""
    turn_end: str
    """After a turn's content; part of what the model says, since it must learn to stop."""
    between: str
    """After `turn_end`; the model does not say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A conversation as one text."""

    text: str
    spans: tuple[tuple[int, int], ...]
    """Start and end of what each assistant turn says, in characters."""


def render(
    messages: Messages,
    *,
    style: ChatStyle,
    clip_text: str | None,
    special_tokens: Iterable[str],
    answer_from: int | None = None,
) -> Rendered:
    """Return the conversation as the family's chat template writes it.

    The first video part becomes `clip_text`; further ones, and all where it is None, become nothing.

    Args:
        messages: The conversation.
        style: How turns are written.
        clip_text: What stands for the clip.
        special_tokens: Are broken up where the conversation's own text holds them.
        answer_from: Where given, the only span is the last assistant turn's, from this character of its text on.
    """
    neutral = _neutraliser(special_tokens)
    text = style.opening
    spans: list[tuple[int, int]] = []
    for message in messages:
        role, parts = message["role"], _parts(message["content"])
        content = ""
        begins_with_clip = False
        for number, part in enumerate(parts):
            if part["type"] == "text":
                content += neutral(part["text"])
            elif part["type"] == "video" and clip_text is not None:
                content += clip_text
                clip_text = None
                begins_with_clip = number == 0
        if role == "assistant":
            text += style.turn_opening(role, False)
            start = len(text)
            text += f"{style.assistant_lead}{content}{style.turn_end}"
            spans.append((start, len(text)))
        else:
            text += f"{style.turn_opening(role, begins_with_clip)}{content}{style.turn_end}"
        text += style.between
    if answer_from is not None and spans:
        start, end = spans[-1]
        spans = [(start + len(style.assistant_lead) + answer_from, end)] if answer_from else [(start, end)]
    return Rendered(text=text, spans=tuple(spans))


def _parts(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _neutraliser(special_tokens: Iterable[str]) -> Callable[[str], str]:
    pattern = re.compile("|".join(re.escape(token) for token in sorted(special_tokens, key=len, reverse=True)))
    # A blank after the first character: readable, and no longer the token.
    return lambda text: pattern.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)


def tokenize(tokenizer: Any, rendered: Rendered) -> tuple[Tensor, Tensor]:
    """Return tokens and labels, int64, N each: a token is trained on where it begins in a span."""
    encoding = tokenizer(rendered.text, return_offsets_mapping=True, add_special_tokens=False)
    input_ids = torch.tensor(encoding["input_ids"], dtype=torch.int64)
    starts = torch.tensor([start for start, _ in encoding["offset_mapping"]], dtype=torch.int64)
    spoken = torch.zeros_like(input_ids, dtype=torch.bool)
    for start, end in rendered.spans:
        spoken |= (starts >= start) & (starts < end)
    return input_ids, input_ids.masked_fill(~spoken, IGNORED_LABEL)


def encode_conversation(
    tokenizer: Any,
    messages: Messages,
    clip: PreparedClip | None,
    *,
    style: ChatStyle,
    special_tokens: Iterable[str],
    media_token_id: int,
    answer_from: int | None,
) -> EncodedSample:
    """Return tokens and labels of a conversation; labels cover the assistant's turns only.

    Args:
        tokenizer: The family's.
        messages: The conversation.
        clip: Its clip; left out of the sample where the conversation has no place for it.
        style: How the family writes turns.
        special_tokens: See `render`.
        media_token_id: Stands for the clip in the tokens.
        answer_from: See `render`.
    """
    rendered = render(
        messages,
        style=style,
        clip_text=clip.text if clip else None,
        special_tokens=special_tokens,
        answer_from=answer_from,
    )
    input_ids, labels = tokenize(tokenizer, rendered)
    has_clip = clip is not None and bool((input_ids == media_token_id).any())
    return EncodedSample(input_ids=input_ids, labels=labels, media=clip.tensors if clip and has_clip else {})


def pad(rows: Sequence[Tensor], value: int) -> Tensor:
    """Return the rows as one matrix, filled on the right."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)
