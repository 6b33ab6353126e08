"""Llama and Mixtral, one architecture there: every layer dense, or every layer routed.

Programs that load it rotate neighbouring channels as pairs, so rows of queries and keys are written
in that order; the imported model pairs the halves of a head, as the original does.
"""

from functools import partial
from typing import Any

from torch import Tensor

from coterie.exchange.core.canonical import Canonical
from coterie.exchange.gguf.families import common
from coterie.exchange.gguf.families.tensors import tensor_map
from coterie.exchange.gguf.family import Family
from coterie.exchange.gguf.metadata import Metadata
from coterie.exchange.gguf.rope import FACTORS, rope_factors


def _reads(meta: Metadata) -> dict[str, Any]:
    if not meta.count("expert_count", 0, least=0):
        return {**common.read_grouped(meta), "feedforward": common.read_dense(meta)}
    mixture = common.read_routed(meta, meta.whole("feed_forward_length"), renormalise=None)
    return {**common.read_grouped(meta), "feedforward": mixture}


def _writes(model: Canonical) -> dict[str, Any]:
    values = common.write_grouped(model)
    if not all(model.is_routed):
        return {**values, "feed_forward_length": model.dense_width or model.expert_width}
    return {**values, "feed_forward_length": model.expert_width, **common.write_routed(model)}


def _extras(model: Canonical) -> dict[str, Tensor]:
    return rope_factors(model, model.grouped.channels(model.settings.width))


LLAMA = Family(
    name="llama",
    title="Llama (or Mixtral, where there are experts)",
    reads=_reads,
    writes=_writes,
    tensor_map=partial(tensor_map, interleaved=True),
    limits=lambda model: common.grouped_limits(model) + common.single_expert(model),
    extras=_extras,
    settings_in_tensors=(FACTORS,),
    notices={r"blk\.\d+\.attn_rot_embd\..*": "a table of rotations that follows from the settings"},
)
