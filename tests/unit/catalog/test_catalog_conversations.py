from __future__ import annotations

import pytest

from reelstream.catalog.conversations import as_messages, with_one_placeholder


def turns(*values: str) -> list[dict[str, str]]:
    return [{"from": "gpt" if number % 2 else "human", "value": value} for number, value in enumerate(values)]


@pytest.mark.parametrize(
    ("published", "uniform"),
    [
        (["<image>\nWhat?", "A cat."], ["<video>\nWhat?", "A cat."]),
        (["<video>\nWhat?", "A cat."], ["<video>\nWhat?", "A cat."]),
        (["What?\n<image>", "A cat."], ["What?\n<video>", "A cat."]),
        (["See <image> here?", "A cat."], ["See <video> here?", "A cat."]),
        (["What?", "A cat."], ["<video>\nWhat?", "A cat."]),
        (["<image>", "A cat."], ["<video>", "A cat."]),
        (["Hello", "Hi", "<image>\nWhat?", "A cat."], ["Hello", "Hi", "<video>\nWhat?", "A cat."]),
        (["<image>\n<image>\nWhat?", "A cat."], ["<video>\nWhat?", "A cat."]),
        (["<image>\nWhat?", "A cat.", "<image>\nAnd?", "A dog."], ["<video>\nWhat?", "A cat.", "And?", "A dog."]),
        (["What?", "<image> is a tag."], ["<video>\nWhat?", " is a tag."]),
        (["<image>\nTags <ima<video>ge>?", "Yes."], ["<video>\nTags ?", "Yes."]),
    ],
)
def test_each_conversation_has_one_placeholder_at_the_publishers_place(
    published: list[str], uniform: list[str]
) -> None:
    assert with_one_placeholder(turns(*published)) == turns(*uniform)


def test_the_published_turns_are_left_as_they_are() -> None:
    published = turns("What?", "A cat.")
    with_one_placeholder(published)
    assert published == turns("What?", "A cat.")


def test_messages_hold_the_video_where_the_placeholder_stood() -> None:
    video, what = {"type": "video"}, {"type": "text", "text": "What?"}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}
    assert as_messages(turns("<video>\nWhat?", "A cat.")) == [{"role": "user", "content": [video, what]}, answer]
    assert as_messages(turns("What?\n<video>", "A cat.")) == [{"role": "user", "content": [what, video]}, answer]
    assert as_messages(turns("<video>", "A cat."))[0] == {"role": "user", "content": [video]}
    assert as_messages(turns("See <video> here?", "A cat."))[0]["content"] == [
        {"type": "text", "text": "See "},
        video,
        {"type": "text", "text": " here?"},
    ]


def test_later_turns_are_plain_text() -> None:
    messages = as_messages(turns("<video>\nWhat?", "A cat.", "And?", "A dog."))
    assert [message["role"] for message in messages] == ["user", "assistant", "user", "assistant"]
    assert messages[2]["content"] == [{"type": "text", "text": "And?"}]
