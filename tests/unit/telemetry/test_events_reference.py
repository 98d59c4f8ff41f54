from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from reelstream.telemetry.events import Event
from reelstream.telemetry.jsonl import event_name

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "events.md"


@pytest.mark.parametrize("kind", [kind for kind in Event.__subclasses__() if dataclasses.is_dataclass(kind)])
def test_every_event_and_field_is_documented(kind: type[Event]) -> None:
    sections = REFERENCE.read_text(encoding="utf-8").split("## ")
    section = next((section for section in sections if section.startswith(f"`{event_name(kind)}`")), "")
    assert section, f"{event_name(kind)} is missing"
    for field in dataclasses.fields(kind):
        assert f"| `{field.name}` |" in section
