"""Heat maps as tiny PNG pictures, a few hundred bytes each, that suit light and dark pages.

Colours are relative to a neutral value that is fully transparent: above it warm, below it cool, the
stronger the further away. So one picture serves both themes, whatever the page's background.
"""

import base64
import struct
import zlib

import numpy as np

WARM = (214, 96, 30)
COOL = (38, 108, 178)


def levels_of_share(share: np.ndarray) -> np.ndarray:
    """Return -1..1 for a load over its even share: half is -1, even 0, double 1 (and beyond)."""
    with np.errstate(divide="ignore"):
        return np.clip(np.log2(np.maximum(share, 1e-9)), -1.0, 1.0)


def picture(levels: np.ndarray) -> str:
    """Return a `data:` address of a PNG for levels from -1 (cool) over 0 (clear) to 1 (warm).

    Args:
        levels: [rows, columns], one pixel each; the first row is on top.
    """
    index = np.rint((np.clip(np.nan_to_num(levels), -1, 1) + 1) * 120).astype(np.uint8)
    colours = b"".join(bytes(WARM if i > 120 else COOL) for i in range(241))
    alphas = bytes(round(255 * (abs(i - 120) / 120) ** 0.85) for i in range(241))
    rows = b"".join(b"\0" + row.tobytes() for row in index)
    height, width = index.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, body)
        for kind, body in (
            (b"IHDR", header),
            (b"PLTE", colours),
            (b"tRNS", alphas),
            (b"IDAT", zlib.compress(rows, 9)),
            (b"IEND", b""),
        )
    )
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def packed(values: np.ndarray, scale: float, offset: int = 0) -> str:
    """Return values as base64 of bytes (value × scale + offset, clipped), read back by the page."""
    whole = np.rint(np.nan_to_num(values) * scale) + offset
    return base64.b64encode(np.clip(whole, 0, 255).astype(np.uint8).tobytes()).decode("ascii")


def _chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)
