"""DeepSpeed's configuration: what we fill in, and what does not go together."""

from __future__ import annotations

from typing import Any

import pytest

from coterie.foundation.errors import SettingsError
from coterie.foundation.layers import Layer, load_settings
from coterie.train import RunSettings
from coterie.train.zero import zero_config


def _settings(config: dict[str, Any], **train: Any) -> RunSettings:
    values: dict[str, Any] = {
        "model": {"layers": 1, "width": 16, "context": 8, "vocab_size": 8},
        "train": {"batch_size": 8, "gradient_accumulation": 2, **train},
        "parallel": {"deepspeed": config},
    }
    return load_settings(RunSettings, [Layer("test", values)]).settings


def test_what_is_left_to_us_is_filled_in():
    zero = {"stage": 2, "reduce_bucket_size": "auto", "overlap_comm": False}
    found = zero_config(
        _settings(
            {
                "train_batch_size": "auto",
                "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": [0.9, 0.95]}},
                "bf16": {"enabled": "auto"},
                "zero_optimization": zero,
                "steps_per_print": "auto",
            }
        ),
        2,
    )
    assert found == {
        "train_batch_size": 8,
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 2,
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": 2, "reduce_bucket_size": 256, "overlap_comm": False},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }


def test_every_contradiction_is_told_at_once():
    config = {
        "train_batch_size": 16,
        "gradient_clipping": 0.5,
        "optimizer": {"type": "Lion", "params": {"lr": 3.0}},
        "fp16": {"enabled": True},
        "scheduler": {"type": "WarmupLR"},
        "zero_optimisation": {},
        "zero_optimization": {
            "stage": 0, "zero_quantized_weights": True, "offload_param": {"device": "nvme"},
        },
    }  # fmt: skip
    with pytest.raises(SettingsError) as caught:
        zero_config(_settings(config, ema=0.9), 2)
    for part in (
        "train_batch_size is 16 there; this run has 8", "gradient_clipping is 0.5",
        "optimizer.type is 'Lion'", "optimizer.params.lr is 3.0", "fp16.enabled is True",
        "train.schedule", "did you mean “zero_optimization”", "stage is 0",
        "zero_quantized_weights", "'nvme'", "train.ema",
    ):  # fmt: skip
        assert part in caught.value.message, part


def test_what_needs_whole_matrices_is_refused():
    with pytest.raises(SettingsError, match="kind=muon"):
        zero_config(_settings({"zero_optimization": {"stage": 2}}, optimizer={"kind": "muon"}), 2)
