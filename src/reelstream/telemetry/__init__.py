"""What happens in a run, as events that any number of sinks receive; importing this configures nothing."""

from reelstream.telemetry.bus import Sink, Telemetry
from reelstream.telemetry.jsonl import JsonLinesSink

__all__ = ["JsonLinesSink", "Sink", "Telemetry"]
