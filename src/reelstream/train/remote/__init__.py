"""Copies of a run's checkpoints elsewhere, so that the run outlives its machine.

```
options, place              what a user names
remote ◄── folder, hub      one place: what it can do, and the two kinds of it
opening                     from the one to the other
pushing                     beside training: durable checkpoints go there
pulling                     before it: the newest whole one comes back
```
"""
