"""Faults on order: what a test asks the hub to get wrong, how often, and for which files."""

from __future__ import annotations

import enum
import fnmatch
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator


class Where(enum.StrEnum):
    """The kind of request that a fault strikes."""

    API = "api"
    RESOLVE = "resolve"
    CDN = "cdn"


class FaultKind(enum.StrEnum):
    """What goes wrong."""

    STATUS = "status"
    """Another answer: `status`, `headers`, `body`."""
    RESET = "reset"
    """The TCP connection is reset after `after_bytes` of the body."""
    CUT_SHORT = "cut_short"
    """The connection is closed in good order after `after_bytes` of the body, which is too early."""
    STALL = "stall"
    """Nothing more comes after `after_bytes` of the body, until the client leaves."""
    EXPIRE = "expire"
    """The CDN answers as if the address had expired."""


class FaultRule(BaseModel):
    """One fault, to happen `times` times."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_enum_values=False)

    match: str = "*"
    """Shell pattern for the path in the repository, or for the path of the URL; `*` crosses slashes."""
    on: Where
    kind: FaultKind
    status: int = Field(default=503, ge=400, le=599)
    headers: dict[str, str] = {}
    body: str = ""
    after_bytes: int = Field(default=0, ge=0)
    """Bytes of the body that still arrive; with 0 not even the headers do."""
    times: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> FaultRule:
        if self.kind is FaultKind.EXPIRE and self.on is not Where.CDN:
            raise ValueError("an address can only expire on 'cdn'")
        return self

    def strikes(self, where: Where, path: str, url_path: str) -> bool:
        """Return whether a request of this kind for this path is meant."""
        return self.on is where and any(fnmatch.fnmatchcase(name, self.match) for name in (path, url_path))


_RULES = TypeAdapter(list[FaultRule])


def parse_rules(document: bytes) -> list[FaultRule]:
    """Return the rules in a JSON list.

    Raises:
        ValueError: Where it is none, with the place and the reason of the first mistake.
    """
    try:
        return _RULES.validate_json(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"[{step}]" for step in first["loc"])
        raise ValueError(f"fault rules{place}: {first['msg']}") from error


class FaultBook:
    """The rules that are left; the first one that fits a request is used up by it, once."""

    def __init__(self) -> None:
        self._rules: list[tuple[FaultRule, int]] = []

    def replace(self, rules: Sequence[FaultRule]) -> None:
        """Forget what is left, and order these."""
        self._rules = [(rule, rule.times) for rule in rules]

    def take(self, where: Where, path: str, url_path: str) -> FaultRule | None:
        """Return the fault that strikes this request, if any, and count it."""
        for place, (rule, left) in enumerate(self._rules):
            if rule.strikes(where, path, url_path):
                self._rules[place : place + 1] = [(rule, left - 1)] if left > 1 else []
                return rule
        return None

    def to_json(self) -> list[dict[str, Any]]:
        """Return what is left, in the form that `parse_rules` reads."""
        return [{**rule.model_dump(mode="json"), "times": left} for rule, left in self._rules]
