#!/usr/bin/env bash
# Checks Coterie on one CUDA device in a few minutes, or rehearses that on a CPU: scripts/gpu_check.sh --device cpu
# Writes results.json, profile.txt and log into $OUT, or gpu-check/ where that is not set. The
# package runs from this source tree, and nothing is downloaded.
set -u
cd "$(dirname "$0")/.." || exit 2
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
exec "${PYTHON:-python3}" scripts/gpu_check.py "$@"
