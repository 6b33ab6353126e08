"""Checks of one CUDA device, by subject; `scripts/gpu_check.py` runs them."""
