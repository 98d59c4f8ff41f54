"""A dataset made on the spot, in the layout of LLaVA-Video-178K, whose clips show what their text says."""

from reelstream.sampledata.barcode import read_frame_number
from reelstream.sampledata.flaws import Flaw, FlawKind
from reelstream.sampledata.make import SampleProgress, make_sample
from reelstream.sampledata.options import SampleOptions
from reelstream.sampledata.record import SampleSummary, SubsetSummary

__all__ = [
    "Flaw",
    "FlawKind",
    "SampleOptions",
    "SampleProgress",
    "SampleSummary",
    "SubsetSummary",
    "make_sample",
    "read_frame_number",
]
