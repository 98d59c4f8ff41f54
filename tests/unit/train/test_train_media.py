from __future__ import annotations

from pathlib import Path

import pytest

from reelstream.errors import ConfigError
from reelstream.prefetch.options import StreamOptions
from reelstream.train.run_options import RunOptions


@pytest.mark.parametrize("media", ["bytes", "path"])
def test_a_run_of_clips_without_frames_is_refused_at_once(media: str, tmp_path: Path) -> None:
    data = StreamOptions(repo_id="sample/data", subsets=("s",), media=media)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"data.media is {media}"):
        RunOptions(run_dir=tmp_path, data=data)
