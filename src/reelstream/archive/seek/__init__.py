"""Seek indexes: learned in the pass that streams an archive, and used to read one member from one range of it."""
