"""Which files the Hub keeps in LFS or Xet, and hence serves by redirecting to its CDN."""

from __future__ import annotations

import re

LARGEST_DIRECT_BYTES = 1_000_000
"""A file above this size is large whatever its name."""

# The names in the `.gitattributes` that the Hub gives to a new dataset repository.
_LARGE_NAME = re.compile(
    r"""
    \.( 7z | arrow | avro | bin | bz2 | ckpt | ftz | gz | h5 | joblib | lz4 | mds | mlmodel | model | msgpack
       | npy | npz | onnx | ot | parquet | pb | pickle | pkl | pt | pth | rar | safetensors | tar | tflite | tgz
       | wasm | xz | zip | zst
       | pcm | sam | raw | aac | flac | mp3 | ogg | wav
       | bmp | gif | png | tiff | jpe?g | webp
       | mp4 | webm
       | avi | mkv | mov | m4v  # not in it, but above the Hub's size limit wherever people publish them
      )\Z
    | \.( lfs | bin | tar )\..
    | tfevents\Z
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


def is_large(path: str, size_bytes: int) -> bool:
    """Return whether the Hub would keep this file in LFS or Xet: an archive, media, or above 1 MB."""
    return size_bytes > LARGEST_DIRECT_BYTES or _LARGE_NAME.search(path.rpartition("/")[2]) is not None
