"""The words that people know from other tools, and what they are called here.

Each word stands for the keys of a run that it may mean, most likely first. Words are compared
without case, hyphens, underscores, dots and blanks.
"""

import re
from collections.abc import Iterable

_MODEL, _FEED = "model", "model.feedforward"
_PACK, _ATTENTION = f"{_FEED}.experts.0", f"{_MODEL}.attention"
_OPTIMIZER, _SAMPLE = "train.optimizer", "sample"

# What it is called here: what it is called elsewhere.
_TABLE = {
    "train.steps": "epochs num_epochs num_train_epochs n_epochs max_epochs max_steps "
    "num_train_steps train_steps total_steps training_steps iters max_iters iterations "
    "num_iterations n_iters total_iterations",
    "train.batch_size": "batch bs bsz per_device_train_batch_size train_batch_size "
    "global_batch_size total_batch_size device_batch_size",
    "train.gradient_accumulation": "accumulation gradient_accumulation_steps grad_accum "
    "grad_accum_steps grad_accumulation accumulate_grad_batches accumulation_steps "
    "micro_batch_size micro_batches",
    "train.optimizer": "optimiser optim",
    f"{_OPTIMIZER}.learning_rate": "lr max_lr peak_lr base_lr lr_rate rate eta learning_rate_max",
    f"{_OPTIMIZER}.weight_decay": "wd decay l2 l2_regularization weight_decay_rate",
    f"{_OPTIMIZER}.beta1": "betas adam_beta1 beta_1 b1",
    f"{_OPTIMIZER}.beta2": "adam_beta2 beta_2 b2",
    f"{_OPTIMIZER}.epsilon": "adam_epsilon adam_eps eps",
    "train.schedule": "scheduler lr_scheduler lr_scheduler_type lr_schedule lr_decay decay_lr",
    "train.schedule.warmup": "warmup_steps warmup_ratio num_warmup_steps warmup_iters "
    "warmup_fraction lr_warmup lr_warmup_steps",
    "train.schedule.final": "min_lr min_lr_ratio final_lr end_lr lr_end",
    "train.clip.max_norm": "grad_clip max_grad_norm clip_grad clip_grad_norm gradient_clip "
    "gradient_clipping gradient_clip_val clip_norm",
    "train.precision": "fp16 bf16 amp dtype torch_dtype mixed_precision half use_amp",
    "train.device": "device_map accelerator gpu cuda cpu",
    "train.compile": "torch_compile compile_model use_compile",
    "train.activation_checkpointing": "recompute gradient_checkpointing checkpointing "
    "use_checkpoint grad_checkpointing recompute_activations recomputation",
    "train.evaluate_every": "eval_interval eval_steps eval_every eval_freq val_every "
    "evaluation_steps val_check_interval eval_iters evaluate_interval evaluation_interval",
    "train.checkpoint_every": "save_steps save_every save_interval save_freq checkpoint_interval "
    "checkpoint_freq ckpt_every checkpoint_steps",
    "train.keep": "save_total_limit keep_last keep_checkpoints max_checkpoints save_top_k",
    "train.log_every": "log_interval logging_steps log_freq log_steps",
    "train.sample_every": "sample_interval sample_steps generate_every",
    "train.prompts": "prompt sample_prompt",
    "train.trackers": "report_to logger loggers wandb wandb_log tensorboard mlflow tracker",
    "model.layers": "n_layer n_layers num_layers num_hidden_layers depth num_blocks n_blocks",
    "model.width": "hidden_size d_model n_embd n_embed hidden_dim embed_dim embedding_dim "
    "embedding_size model_dim dim emb_dim",
    "model.context": "seq_len sequence_length seq_length max_seq_len max_seq_length block_size "
    "n_ctx n_positions max_position_embeddings context_length context_size context_window ctx "
    "max_length",
    "model.vocab_size": "vocab vocabulary vocabulary_size n_vocab num_tokens",
    f"{_ATTENTION}.heads": "n_head n_heads num_heads num_attention_heads attention_heads nhead",
    f"{_ATTENTION}.kv_heads": "n_kv_head n_kv_heads num_kv_heads num_key_value_heads kv_head",
    f"{_ATTENTION}.head_dim": "head_size d_head d_kv attention_head_size",
    f"{_ATTENTION}.window": "sliding_window window_size attention_window local_window",
    f"{_ATTENTION}.dropout": "attention_dropout attn_dropout attn_pdrop "
    "attention_probs_dropout_prob",
    "model.dropout": "dropout_rate dropout_prob drop_rate resid_pdrop embd_pdrop p_dropout "
    "hidden_dropout hidden_dropout_prob residual_dropout",
    "model.stochastic_depth": "drop_path drop_path_rate layer_drop layerdrop",
    "model.norm": "normalization normalisation norm_type layer_norm layernorm rms_norm",
    "model.norm.epsilon": "rms_norm_eps layer_norm_eps layer_norm_epsilon norm_eps eps",
    "model.position": "positional_encoding pos_encoding position_embedding pos_emb rope",
    "model.position.theta": "rope_theta rope_base rotary_emb_base theta rotary_base",
    "model.position.scaling": "rope_scaling",
    "model.head.tied": "tie_word_embeddings tie_embeddings tie_weights weight_tying "
    "tied_embeddings",
    "model.initial.std": "initializer_range init_std std init_scale",
    f"{_FEED}.mlp.width": "intermediate_size d_ff ffn_dim n_inner ffn_hidden_size ff_dim mlp_dim "
    "feedforward_dim dim_feedforward",
    f"{_FEED}.mlp.activation": "hidden_act act_fn activation_function hidden_activation",
    f"{_FEED}.mlp": "ffn feed_forward",
    f"{_PACK}.count": "num_experts n_experts num_local_experts n_routed_experts experts_count "
    "moe_num_experts",
    f"{_PACK}.mlp.width": "moe_intermediate_size expert_width expert_dim ffn_dim",
    f"{_FEED}.experts_per_token": "num_experts_per_tok num_experts_per_token top_k_experts "
    "moe_top_k router_top_k n_activated_experts experts_per_tok active_experts moe_k",
    f"{_FEED}.shared_experts": "n_shared_experts num_shared_experts",
    f"{_FEED}.capacity_factor": "moe_capacity_factor expert_capacity",
    f"{_FEED}.balance.coefficient": "aux_loss_coef router_aux_loss_coef aux_loss_weight "
    "load_balancing_loss_weight moe_aux_loss_coeff aux_loss",
    f"{_FEED}.router.z_loss": "router_z_loss_coef z_loss_weight z_loss_coef",
    "model.mtp": "ahead multi_token_prediction multi_token",
    "model.mtp.depth": "num_nextn_predict_layers mtp_depth n_future_tokens",
    f"{_SAMPLE}.seed": "random_seed rng_seed",
    f"{_SAMPLE}.temperature": "temp t",
    f"{_SAMPLE}.top_k": "k topk",
    f"{_SAMPLE}.top_p": "p topp nucleus nucleus_p",
    f"{_SAMPLE}.repetition_penalty": "rep_pen repeat_penalty repetition rep_penalty",
    f"{_SAMPLE}.typical_p": "typical typ_p locally_typical",
    f"{_SAMPLE}.min_tokens": "min_new_tokens min_length",
    f"{_SAMPLE}.order": "samplers sampler_order",
    f"{_SAMPLE}.logprobs": "top_logprobs n_probs n_logprobs",
    f"{_SAMPLE}.repetition_window": "repeat_last_n no_repeat_window penalty_window",
    f"{_SAMPLE}.max_tokens": "max_new_tokens max_length n_predict new_tokens num_predict length "
    "max_gen_len max_output_tokens max_completion_tokens n_tokens max_len num_tokens",
    f"{_SAMPLE}.stop": "stop_sequences stop_words stop_strings stop_token stops stop_text "
    "eos until",
    f"{_SAMPLE}.cache": "use_cache kv_cache cache_type",
    "seed": "random_seed rng_seed manual_seed random_state",
    "data.source": "dataset data_path data_dir train_file train_data input input_file inputs text "
    "corpus file files dataset_name data_file",
    "data.column": "text_column text_field column_name text_key",
    "data.valid_fraction": "val_split validation_split test_size val_fraction valid_split "
    "validation_fraction val_size test_fraction valid_size",
    "data.packing": "sample_packing sequence_packing pack_sequences packed pack",
    "data.store": "bin_file token_file tokens prepared",
    "tokenizer": "tokeniser encoding tokenizer_name tokenizer_type",
    "tokenizer.special_tokens": "special additional_special_tokens extra_tokens",
    # flags
    "--out": "output output_dir out_dir output_file output_path o",
    "--name": "run_name experiment_name exp_name",
    "--resume": "resume_from_checkpoint continue restart resume_from",
    "--samples": "num_return_sequences num_samples n best_of",
    "--dry-run": "plan estimate",
    # kinds and choices
    "adamw": "adam adamw_torch adam_w",
    "adafactor": "ada_factor",
    "rms": "rmsnorm rms_norm",
    "layer": "layernorm layer_norm ln",
    "rotary": "rope rotary_embedding",
    "learned": "absolute learnt",
    "grouped": "mha gqa mqa multihead multi_head self_attention attention",
    "mla": "latent multi_head_latent",
    "moe": "mixture mixture_of_experts sparse",
    "gated": "glu reglu",
    "relu_squared": "relu2",
    "silu": "swish",
    "wsd": "warmup_stable_decay trapezoidal",
    "cosine": "cos cosine_annealing cosine_with_warmup",
    "float16": "fp16 half f16",
    "bfloat16": "bf16",
    "float32": "fp32 f32 full",
    "characters": "char chars character",
    "bytes": "byte byt5 utf8",
    "csv": "table file",
    "wandb": "weights_and_biases",
}


def squash(word: str) -> str:
    """Return a word as words are compared: without case, hyphens, underscores, dots and blanks."""
    return re.sub(r"[-_.\s]", "", word).lower()


def _turn(table: dict[str, str]) -> dict[str, tuple[str, ...]]:
    turned: dict[str, tuple[str, ...]] = {}
    for name, words in table.items():
        for word in words.split():
            turned[squash(word)] = (*turned.get(squash(word), ()), name)
    return turned


SYNONYMS = _turn(_TABLE)


def meant_by(word: str, choices: Iterable[str]) -> list[str]:
    """Return the choices that a word certainly means: spelt otherwise, or known by another name.

    Args:
        choices: names or dotted keys.
    """
    known, wanted = list(choices), squash(word)
    if not wanted:
        return []
    same = [name for name in known if squash(name) == wanted]
    last = [name for name in known if squash(name.rpartition(".")[2]) == wanted]
    if same or last:
        return list(dict.fromkeys([*same, *last]))
    keys = SYNONYMS.get(wanted, ())
    whole = [key for key in keys if key in known]
    ends = [key.rpartition(".")[2] for key in keys]
    return list(dict.fromkeys([*whole, *(end for end in ends if end in known)]))
