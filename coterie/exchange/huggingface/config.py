"""Reading a Hugging Face config.json (see `core.values`)."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from coterie.exchange.core.values import ForeignValues
from coterie.exchange.imported import shown

_IGNORED = frozenset({
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
_REFUSED = frozenset({
    "add_cross_attention", "alibi", "attention_multiplier", "attn_logit_softcapping", "clip_qkv",
    "embedding_multiplier", "final_logit_softcapping", "index_topk", "layer_norm_type",
    "logit_scale", "logits_scaling", "parallel_attn", "qk_clip", "quantization_config",
    "query_pre_attn_scalar", "residual_multiplier", "scale_attn_by_inverse_layer_idx", "scale_emb",
    "use_alibi", "use_parallel_residual", "swiglu_limit",
})  # fmt: skip


class Config(ForeignValues):
    """The values of a config.json."""

    refused: ClassVar = _REFUSED
    ignored: ClassVar = _IGNORED

    def __init__(
        self,
        values: Mapping[str, Any],
        defaults: Mapping[str, Any],
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        """Take the values of a file.

        Args:
            defaults: what `transformers` assumes where the file is silent.
            aliases: other names of values, and the names meant.
        """
        super().__init__()
        meant = aliases or {}
        self._values = {meant.get(name, name): value for name, value in values.items()}
        self._defaults = defaults
        self._read = {*defaults}

    def raw(self, name: str) -> Any:
        self._read.add(name)
        return self._values.get(name, self._defaults.get(name))

    def require(self, name: str, *allowed: Any) -> None:
        """Refuse every value of a name but those allowed."""
        value = self.raw(name)
        if value not in allowed:
            choices = " or ".join(repr(each) for each in allowed)
            self.refuse(f"{name} is {shown(value)}; only {choices} can be expressed here")

    def _given(self) -> Iterator[tuple[str, Any]]:
        yield from self._values.items()

    def _unread(self, name: str) -> str:
        return f"{name} in config.json is not read by this architecture"
