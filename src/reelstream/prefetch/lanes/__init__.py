"""What the lanes' threads do: read spans of unknown or of known members, and hand over their clips in windows."""
