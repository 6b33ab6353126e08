"""Reading a foreign config.json: every value checked, every problem collected, nothing guessed.

What a family asks for is marked as known. Values that change the mathematics and that no part of
the decoder computes are refused by name; other unknown names, which the family's own code does not
read either, are mentioned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coterie.exchange.imported import ExchangeError, shown

# Names that say nothing about what is computed from tokens to logits.
_IDLE = frozenset({
    "_name_or_path", "architectures", "auto_map", "bos_token_id", "chunk_size_feed_forward",
    "dtype", "eos_token_id", "ep_size", "id2label", "initializer_range", "label2id", "model_type",
    "n_ctx", "output_attentions", "output_hidden_states", "output_router_logits", "pad_token_id",
    "pretraining_tp", "problem_type", "return_dict", "seq_aux", "aux_loss_alpha",
    "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type",
    "summary_use_proj", "task_specific_params", "tie_encoder_decoder", "torch_dtype",
    "transformers_version", "unk_token_id", "use_cache", "use_return_dict", "is_llama_config",
    "reorder_and_upcast_attn", "gradient_checkpointing", "is_encoder_decoder", "is_decoder",
    "transformers_weights", "num_key_value_groups", "experts_implementation", "attn_implementation",
    "_attn_implementation", "max_window_layers", "keys_to_ignore_at_inference", "sep_token_id",
    "decoder_start_token_id", "prefix",
})  # fmt: skip
# Names of known changes to the mathematics that no part of the decoder computes.
_REFUSED = frozenset({
    "add_cross_attention", "alibi", "attention_multiplier", "attn_logit_softcapping", "clip_qkv",
    "embedding_multiplier", "final_logit_softcapping", "index_topk", "layer_norm_type",
    "logit_scale", "logits_scaling", "parallel_attn", "qk_clip", "quantization_config",
    "query_pre_attn_scalar", "residual_multiplier", "scale_attn_by_inverse_layer_idx", "scale_emb",
    "use_alibi", "use_parallel_residual", "swiglu_limit",
})  # fmt: skip

_MOST, _MOST_EXPERTS = 1 << 30, 1 << 16  # beyond them a file is damaged
_EXPERTS = frozenset({"num_local_experts", "num_experts", "n_routed_experts"})


class Config:
    """The values of a config.json, with the problems found in them so far."""

    def __init__(
        self,
        values: Mapping[str, Any],
        defaults: Mapping[str, Any],
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        """Take the values of a file.

        Args:
            values: of the file.
            defaults: what its makers' code assumes where the file is silent.
            aliases: other names, and the names meant.
        """
        self.problems: list[str] = []
        self.notes: list[str] = []
        meant = aliases or {}
        self._values = {meant.get(name, name): value for name, value in values.items()}
        self._defaults = dict(defaults)
        self._known = {*defaults}

    def raw(self, name: str) -> Any:
        """Return a value as it stands, or its default; None where there is neither."""
        self._known.add(name)
        return self._values.get(name, self._defaults.get(name))

    def whole(self, name: str, default: int | None = None, *, least: int = 1) -> int:
        """Return a whole number of at least `least`; where it is null, the default."""
        value = self.raw(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self._wrong(name, value, f"a whole number of at least {least}")
            return least
        if value > (most := _MOST_EXPERTS if name in _EXPERTS else _MOST):
            self._wrong(name, value, f"a whole number up to {most:,}")
            return least
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """Return a number; where it is null, the default."""
        value = self.raw(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._wrong(name, value, "a number")
            return 1.0
        return float(value)

    def flag(self, name: str) -> bool:
        """Return a truth value; null is false."""
        value = self.raw(name)
        if value is not None and not isinstance(value, bool):
            self._wrong(name, value, "true or false")
        return bool(value)

    def require(self, name: str, *allowed: Any) -> None:
        """Refuse every value of a name but those allowed."""
        value = self.raw(name)
        if value not in allowed:
            choices = " or ".join(repr(each) for each in allowed)
            self.refuse(f"{name} is {shown(value)}; only {choices} can be expressed here")

    def refuse(self, problem: str) -> None:
        """Add a problem; all of them are reported together."""
        if problem not in self.problems:
            self.problems.append(problem)

    def finish(self, path: object) -> None:
        """Look at the names nobody asked for, and report all problems.

        Raises:
            ExchangeError: there are any.
        """
        for name, value in self._values.items():
            if name in self._known or name in _IDLE or not value:
                continue
            if name in _REFUSED:
                self.refuse(f"{name} is {shown(value)}, which no part of the decoder computes")
            else:
                self.notes.append(f"{name} in config.json is not read by this architecture")
        if self.problems:
            raise ExchangeError(
                f"{path} describes a model that cannot be expressed here:\n  "
                + "\n  ".join(self.problems)
            )

    def _wrong(self, name: str, value: Any, expected: str) -> None:
        said = "is missing" if value is None else f"is {shown(value)}"
        self.refuse(f"{name} {said}; it must be {expected}")
