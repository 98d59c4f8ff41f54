"""What a hub is told at its start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reelstream.errors import ConfigError

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """The settings of `reelstream serve`; contradictions are refused when it is made."""

    root: Path
    """The served folder: `<org>/<name>/...`."""
    host: str = "127.0.0.1"
    """Address to listen on; others than loopback can be reached from the network."""
    port: int = 0
    """Port of the Hub; 0 lets the system choose."""
    cdn_port: int = 0
    """Port of the CDN; 0 lets the system choose."""
    bandwidth_bytes_per_s: int | None = None
    """Cap on the bytes of bodies per second, all connections to both ports together; None for none."""
    latency_s: float = 0.0
    """Seconds added once to each request, before its first byte."""
    address_ttl_s: float = 3600.0
    """Seconds for which a signed address is served."""
    token: str | None = None
    """Where given, the hub is private: it answers to this token only."""
    faults: bool = False
    """Whether `/_faults` takes orders."""
    writable: bool = False
    """Whether repositories may be made and committed to; models lie in the hidden folder `.models` of the root."""

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise ConfigError(
                f"{str(self.root)!r} is not a folder", "name the folder that holds <org>/<name>/ dataset repositories"
            )
        for name, port in (("port", self.port), ("cdn-port", self.cdn_port)):
            if not 0 <= port <= 65535:
                raise ConfigError(f"{name} must be from 0 to 65535, not {port}", "0 lets the system choose")
        if self.port and self.port == self.cdn_port:
            raise ConfigError(f"port and cdn-port are both {self.port}", "give the CDN a port of its own, or none")
        if self.bandwidth_bytes_per_s is not None and self.bandwidth_bytes_per_s < 1:
            raise ConfigError("bandwidth must be above 0", "leave it out for no cap")
        if self.token == "":
            raise ConfigError("the token is empty", "leave it out for a public hub")
        if self.writable and self.token is None and self.host not in LOOPBACK:
            raise ConfigError(
                f"a writable hub on {self.host} would let everybody who reaches this machine write to its disk",
                "give it a token, or let it listen on 127.0.0.1",
            )
