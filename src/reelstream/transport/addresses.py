"""Signed addresses: how long one lives, and one look-up for all threads that want the same file."""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime as dt
import email.utils
import json
import math
import threading
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field

from reelstream.cancel import Cancellation
from reelstream.clock import Clock
from reelstream.errors import HubError

# What the Hub's addresses live where they do not say.
_USUAL_LIFETIME_S = 3600.0
# Some servers count milliseconds; as seconds this would be the year 5138.
_SMALLEST_MILLISECONDS = 1e11
_LONGEST_MARGIN_S = 60.0
_MARGIN_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a file's bytes are asked for."""

    url: str = field(repr=False)
    """Its query is a secret: whoever has it can read the file."""
    at_hub: bool
    """Whether the Hub serves the file itself, so that the token must go along."""
    fresh_until_s: float
    """Monotonic seconds; renewed after this."""
    own: bool = True
    """Whether this process has asked for it; else another one of the machine did, some time ago."""


def lifetime_s(url: str, *, wall_s: float) -> float:
    """Return the seconds that a signed address still lives, by what it says itself; an hour where it is silent.

    Reads `X-Amz-Date` with `X-Amz-Expires`, `Expires` or `expires` (seconds or milliseconds since the epoch, or an
    HTTP date) and the expiry in a CloudFront `Policy` or a JSON web token. An expiry that has passed at once is taken
    for a clock that is wrong: the address is then used until the server refuses it.

    Args:
        url: The address.
        wall_s: The moment of the answer that named it, in seconds since the epoch; by the server's clock if known.
    """
    query = {name.lower(): value for name, value in urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query)}
    expires_s = _amazon_expiry(query) or _plain_expiry(query) or _policy_expiry(query) or _web_token_expiry(query)
    if expires_s is None or not wall_s < expires_s < math.inf:
        return _USUAL_LIFETIME_S
    return expires_s - wall_s


def fresh_for_s(life_s: float) -> float:
    """Return how much of a life is used: renewed a minute before its end, or at nine tenths of a short one."""
    return life_s - min(_LONGEST_MARGIN_S, _MARGIN_SHARE * life_s)


def _amazon_expiry(query: dict[str, str]) -> float | None:
    with contextlib.suppress(KeyError, ValueError):
        signed = dt.datetime.strptime(query["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
        return signed.timestamp() + float(query["x-amz-expires"])
    return None


def _plain_expiry(query: dict[str, str]) -> float | None:
    text = query.get("expires", "")
    with contextlib.suppress(ValueError):
        number = float(text)
        return number / 1000 if number > _SMALLEST_MILLISECONDS else number
    with contextlib.suppress(ValueError):
        return email.utils.parsedate_to_datetime(text).timestamp()
    return None


def _policy_expiry(query: dict[str, str]) -> float | None:
    # CloudFront writes base64 with three characters of its own.
    policy = _json_of(query.get("policy", "").translate(str.maketrans("-_~", "+=/")))
    with contextlib.suppress(KeyError, IndexError, TypeError, ValueError):
        return float(policy["Statement"][0]["Condition"]["DateLessThan"]["AWS:EpochTime"])  # type: ignore[index]
    return None


def _web_token_expiry(query: dict[str, str]) -> float | None:
    for value in query.values():
        parts = value.split(".")
        if len(parts) == 3 and value.startswith("ey"):
            claims = _json_of(parts[1].translate(str.maketrans("-_", "+/")))
            if isinstance(claims, dict) and isinstance(claims.get("exp"), int | float):
                return float(claims["exp"])
    return None


def _json_of(text: str) -> object:
    try:
        return json.loads(base64.b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError):
        return None


@dataclass(slots=True)
class _Entry:
    """What the book knows about one file."""

    address: Address | None = None
    being_resolved: bool = False
    num_failures: int = 0
    error: HubError | None = None


class AddressBook:
    """The address of each file, looked up once for all threads and again when it has aged or was refused."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # Reentrant: `Cancellation.on_cancel` may call back at once, in the thread that waits.
        self._changed = threading.Condition(threading.RLock())
        self._entries: dict[str, _Entry] = {}

    def address(self, key: str, resolve: Callable[[], Address], cancellation: Cancellation) -> Address:
        """Return a fresh address of `key`; one thread at a time calls its `resolve`, the others wait for that.

        Raises:
            HubError: What `resolve` raised, in this thread or in the one that was waited for.
            Cancelled: Where the waiting is called off.
        """
        with cancellation.on_cancel(self._wake):
            with self._changed:
                entry = self._entries.setdefault(key, _Entry())
                num_failures = entry.num_failures
                while entry.being_resolved and not cancellation.cancelled:
                    self._changed.wait()
                cancellation.raise_if_cancelled()
                if entry.num_failures != num_failures and entry.error is not None:
                    # An instance of its own: threads would write their tracebacks into a shared one.
                    raise type(entry.error)(entry.error.fact, entry.error.hint) from entry.error
                if entry.address is not None and self._clock.monotonic() < entry.address.fresh_until_s:
                    return entry.address
                entry.being_resolved = True
            return self._resolve(entry, resolve)

    def drop(self, key: str, address: Address) -> None:
        """Forget an address that was refused, unless it has been replaced already."""
        with self._changed:
            entry = self._entries[key]
            if entry.address is address:
                entry.address = None

    def _resolve(self, entry: _Entry, resolve: Callable[[], Address]) -> Address:
        address: Address | None = None
        error: HubError | None = None
        try:
            address = resolve()
        except HubError as raised:
            error = raised
            raise
        finally:
            # Also where it was called off: then one of those who wait takes over.
            with self._changed:
                entry.being_resolved = False
                entry.address, entry.error = address, error
                entry.num_failures += error is not None
                self._changed.notify_all()
        return address

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
