r"""The catalog's files: one folder a subset, two Arrow IPC files in it.

```
<cache>/<subset>-<16 hex digits of its identity>/
├── clips.arrow     one record batch, a row a clip; written last: with it the folder is complete
│   ├── path     string        member's path, normalised
│   ├── hash     uint64        BLAKE2b-64 of the path; ascending: the order of the rows, and the clips' numbers
│   └── samples  list<int32>   rows of samples.arrow: by kind as asked for, then by file and row
└── samples.arrow   record batches of about 1 MiB, a row a sample, in the order of the files
    ├── file     uint8         which annotation file, as listed in the metadata
    ├── row      int32         row in that file
    ├── id       string        the publisher's id
    └── text     binary        one zstandard frame: UTF-8 JSON [["human", "<video>\n…"], ["gpt", "…"], …]
```

A clip is found by binary search in `hash`, its samples by the list's offsets: arithmetic on mapped pages, so that
opening builds nothing. No buffer is compressed as a whole (a mapped page is used as it lies); each text is, by itself,
with a dictionary trained on its file's first samples.

`clips.arrow` carries one metadata key, `reelstream`: JSON with `format`, `version`, `identity` (what the catalog was
made from), `dictionaries` (base64, one an annotation file), `left_out` (reason to rows), `num_samples` and
`samples_size_bytes`, the size that tells a torn `samples.arrow` from a whole one. `samples.arrow` carries `format` and
`version` only. Numbers are little-endian.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from reelstream.catalog.layout import SubsetLayout

FORMAT_NAME = "reelstream-catalog"
FORMAT_VERSION = 1
CLIPS_FILE = "clips.arrow"
SAMPLES_FILE = "samples.arrow"

_METADATA_KEY = b"reelstream"
_CLIP_FIELDS = [("path", pa.string()), ("hash", pa.uint64()), ("samples", pa.list_(pa.int32()))]
_SAMPLE_FIELDS = [("file", pa.uint8()), ("row", pa.int32()), ("id", pa.string()), ("text", pa.binary())]

Identity = dict[str, Any]
"""What a subset's catalog is made from, as plain JSON values: equal identities, equal catalogs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What `clips.arrow` says about itself."""

    identity: Identity
    dictionaries: tuple[bytes, ...]
    """One an annotation file; empty where there were too few samples to train one."""
    left_out: Mapping[str, int]
    num_samples: int
    samples_size_bytes: int


def identity_of(layout: SubsetLayout) -> Identity:
    """Return what a catalog of `layout` is made from."""
    return {
        "version": FORMAT_VERSION,
        "commit": layout.commit,
        "subset": layout.name,
        "kinds": list(layout.kinds),
        "annotations": [
            {
                "kind": annotation.kind,
                "path": annotation.path,
                "size_bytes": annotation.file.size_bytes,
                "sha256": annotation.file.sha256,
            }
            for annotation in layout.annotations
        ],
    }


def fingerprint_of(identities: Sequence[Identity]) -> str:
    """Return the SHA-256 of subsets' identities in their order, as hex digits."""
    text = json.dumps(list(identities), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def folder_name(layout: SubsetLayout) -> str:
    """Return the name of the folder that holds the catalog of `layout`: another identity has another name."""
    return f"{layout.name.replace('/', '+')}-{fingerprint_of([identity_of(layout)])[:16]}"


def clips_schema(header: Header) -> pa.Schema:
    """Return the schema of `clips.arrow`, with `header` in it."""
    return _schema(
        _CLIP_FIELDS,
        {
            "identity": header.identity,
            "dictionaries": [base64.b64encode(dictionary).decode() for dictionary in header.dictionaries],
            "left_out": dict(header.left_out),
            "num_samples": header.num_samples,
            "samples_size_bytes": header.samples_size_bytes,
        },
    )


def samples_schema() -> pa.Schema:
    """Return the schema of `samples.arrow`."""
    return _schema(_SAMPLE_FIELDS, {})


def read_header(schema: pa.Schema) -> Header:
    """Return the header in the schema of a `clips.arrow`.

    Raises:
        ValueError: The schema is none of this format and version.
    """
    try:
        values = json.loads((schema.metadata or {})[_METADATA_KEY])
        if (values["format"], values["version"]) != (FORMAT_NAME, FORMAT_VERSION):
            raise ValueError(f"format {values['format']!r} version {values['version']!r}")
        return Header(
            identity=values["identity"],
            dictionaries=tuple(base64.b64decode(dictionary) for dictionary in values["dictionaries"]),
            left_out=values["left_out"],
            num_samples=values["num_samples"],
            samples_size_bytes=values["samples_size_bytes"],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"no catalog header: {error!r}") from error


def _schema(fields: list[tuple[str, pa.DataType]], values: Mapping[str, Any]) -> pa.Schema:
    header = {"format": FORMAT_NAME, "version": FORMAT_VERSION, **values}
    columns = [pa.field(name, data_type, nullable=False) for name, data_type in fields]
    return pa.schema(columns, metadata={_METADATA_KEY: json.dumps(header, sort_keys=True).encode()})
