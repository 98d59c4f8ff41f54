"""The catalog: which clips and samples the chosen subsets hold, read from the annotations alone.

`select_subsets` picks the files, `prepare_catalog` builds or opens the catalog, `Catalog` answers.
"""

from reelstream.catalog.build import OpenFile, build_subset
from reelstream.catalog.catalog import Catalog, SampleSource, catalog_folder, open_catalog, prepare_catalog
from reelstream.catalog.choices import parse_answer, parse_options
from reelstream.catalog.conversations import as_messages
from reelstream.catalog.layout import (
    ANNOTATION_KINDS,
    AnnotationFile,
    SubsetLayout,
    find_subsets,
    select_media,
    select_subset,
    select_subsets,
)
from reelstream.catalog.split import Split, SplitSide
from reelstream.catalog.storage import Reserve

__all__ = [
    "ANNOTATION_KINDS",
    "AnnotationFile",
    "Catalog",
    "OpenFile",
    "Reserve",
    "SampleSource",
    "Split",
    "SplitSide",
    "SubsetLayout",
    "as_messages",
    "build_subset",
    "catalog_folder",
    "find_subsets",
    "open_catalog",
    "parse_answer",
    "parse_options",
    "prepare_catalog",
    "select_media",
    "select_subset",
    "select_subsets",
]
