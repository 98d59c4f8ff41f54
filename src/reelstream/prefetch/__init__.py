"""The download manager: schedule, transport, archive, cache and decode composed, in the background of the trainer."""
