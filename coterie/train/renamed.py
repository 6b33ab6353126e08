"""Keys of a run's settings that had other names: what older versions wrote, by its old name."""

SETTINGS = {
    "train.accumulation": "train.gradient_accumulation",
    "train.recompute": "train.activation_checkpointing",
}
