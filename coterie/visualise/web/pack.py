"""Traces as the page reads them: records stay bytes, and beside them stands how they lie."""

import base64
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coterie.foundation.traces import Trace, TraceHeader


def opening(header: TraceHeader) -> dict[str, Any]:
    """Return what the page must know before the first token: the header and a record's layout.

    The layout names for each field its offset in bytes, how many values it holds and their type as
    numpy writes it; `size` is a record's length.
    """
    record = header.record_type()
    fields = {}
    for name in record.names or ():
        kind, offset = record.fields[name][:2]  # type: ignore[index]
        fields[name] = {
            "offset": int(offset), "type": kind.base.str, "shape": [int(n) for n in kind.shape],
        }  # fmt: skip
    return {"header": header.model_dump(mode="json"), "fields": fields, "size": record.itemsize}


def tokens(
    records: np.ndarray, texts: Sequence[str], words: Mapping[int, str], *, small: bool = False
) -> dict[str, Any]:
    """Return some tokens as JSON-able values; `small`: their records are compressed (zlib)."""
    content = records.tobytes()
    content = zlib.compress(content, 6) if small else content
    return {
        "records": base64.b64encode(content).decode(), "small": small,
        "texts": list(texts), "words": {str(token): word for token, word in words.items()},
    }  # fmt: skip


def packed(trace: Trace, title: str = "") -> dict[str, Any]:
    """Return a whole trace as JSON-able values."""
    return {
        "title": title or trace.header.model, **opening(trace.header), "ending": trace.ending,
        "tokens": tokens(trace.records, trace.texts, trace.words, small=True),
    }  # fmt: skip
