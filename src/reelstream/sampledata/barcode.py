"""The number of a frame, drawn in its upper left corner so that lossy coding and scaling leave it readable.

The panel is black, 8 x 5 cells large, a cell's edge being a fortieth of the frame's longest side. In it, half a cell
from its borders, lie 7 x 4 cells, read by rows:

```
W n n n n n B      W, B: always white, always black (they set the threshold)
n n n n n n n      n:    the number, 12 bits, the highest first
c c c c c c c      c:    check bits: the lowest 12 of the number's CRC-32
B c c c c c W
```
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

from reelstream.types import UInt8Array

CELLS_PER_LONGEST_SIDE = 40
LARGEST_NUMBER = 2**12 - 1

_COLUMNS = 7
_ROWS = 4
_FINDERS = {0: True, 6: False, 21: False, 27: True}
_PAYLOAD_CELLS = [cell for cell in range(_COLUMNS * _ROWS) if cell not in _FINDERS]
_BLACK_LUMA = 16
_WHITE_LUMA = 235
# Of 255; a code that has lost more than this to coding is not one to trust.
_LEAST_CONTRAST = 60.0


def draw_frame_number(luma: UInt8Array, number: int) -> None:
    """Draw `number` into a frame's luma plane, H x W, in place.

    Raises:
        ValueError: Where `number` is outside 0 to `LARGEST_NUMBER`.
    """
    if not 0 <= number <= LARGEST_NUMBER:
        raise ValueError(f"a frame number must be between 0 and {LARGEST_NUMBER}, not {number}")
    cell = max(luma.shape) / CELLS_PER_LONGEST_SIDE
    panel_width, panel_height = panel_size(luma.shape[1], luma.shape[0])
    luma[:panel_height, :panel_width] = _BLACK_LUMA
    for place, white in enumerate(_cells(number)):
        if white:
            row, column = divmod(place, _COLUMNS)
            top, bottom = round((row + 0.5) * cell), round((row + 1.5) * cell)
            left, right = round((column + 0.5) * cell), round((column + 1.5) * cell)
            luma[top:bottom, left:right] = _WHITE_LUMA


def panel_size(width: int, height: int) -> tuple[int, int]:
    """Return the even width and height in pixels of the black panel in a frame of this size."""
    cell = max(width, height) / CELLS_PER_LONGEST_SIDE
    return _even_up((_COLUMNS + 1) * cell), _even_up((_ROWS + 1) * cell)


def read_frame_number(frame: UInt8Array) -> int | None:
    """Return the number that a frame of the sample dataset carries.

    Args:
        frame: uint8, 3 x H x W or H x W x 3, of the drawn size or scaled with its aspect ratio kept.

    Returns:
        The index of the frame in order of presentation, from 0; `None` where no code can be read.

    Raises:
        ValueError: Where `frame` has another shape or type.
    """
    gray = _gray_corner(frame)
    cell = max(_height_and_width(frame)) / CELLS_PER_LONGEST_SIDE
    levels = np.array([_cell_level(gray, place, cell) for place in range(_COLUMNS * _ROWS)])
    white = min(levels[place] for place, is_white in _FINDERS.items() if is_white)
    black = max(levels[place] for place, is_white in _FINDERS.items() if not is_white)
    if white - black < _LEAST_CONTRAST:
        return None
    bits = levels > (white + black) / 2
    payload = 0
    for place in _PAYLOAD_CELLS:
        payload = payload << 1 | int(bits[place])
    number, check = divmod(payload, 2**12)
    return number if check == _check_bits(number) else None


def _cells(number: int) -> list[bool]:
    payload = number << 12 | _check_bits(number)
    cells = dict(_FINDERS)
    for shift, place in enumerate(reversed(_PAYLOAD_CELLS)):
        cells[place] = bool(payload >> shift & 1)
    return [cells[place] for place in range(_COLUMNS * _ROWS)]


def _check_bits(number: int) -> int:
    return zlib.crc32(number.to_bytes(2, "big")) & 0xFFF


def _height_and_width(frame: UInt8Array) -> tuple[int, int]:
    if frame.dtype != np.uint8 or frame.ndim != 3 or 3 not in {frame.shape[0], frame.shape[2]}:
        raise ValueError(f"a frame must be uint8, 3 x H x W or H x W x 3, not {frame.dtype} {frame.shape}")
    return (frame.shape[0], frame.shape[1]) if frame.shape[2] == 3 else (frame.shape[1], frame.shape[2])


def _gray_corner(frame: UInt8Array) -> npt.NDArray[np.float32]:
    width, height = panel_size(*reversed(_height_and_width(frame)))
    corner, axis = (frame[:height, :width], 2) if frame.shape[2] == 3 else (frame[:, :height, :width], 0)
    gray: npt.NDArray[np.float32] = corner.mean(axis=axis, dtype=np.float32)
    return gray


def _cell_level(gray: npt.NDArray[np.float32], place: int, cell: float) -> float:
    """Return the mean gray of the middle of a cell: its borders suffer from scaling and ringing."""
    row, column = divmod(place, _COLUMNS)
    top, bottom = _middle(row, cell)
    left, right = _middle(column, cell)
    middle = gray[top:bottom, left:right]
    return float(middle.mean()) if middle.size else 0.0


def _middle(index: int, cell: float) -> tuple[int, int]:
    centre = (index + 1) * cell
    first = int(centre - cell / 4)
    return first, max(first + 1, round(centre + cell / 4))


def _even_up(pixels: float) -> int:
    return 2 * -int(-pixels // 2)
