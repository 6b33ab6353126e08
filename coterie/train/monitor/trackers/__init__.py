"""Trackers: observers that send a run's numbers to other tools. A closed union; each is one file.

A tracker's settings have `build(run)`, which returns an observer, which is called with every event.
"""

from typing import Annotated

from coterie.foundation.settings import union
from coterie.train.monitor.trackers.mlflow import MLflow
from coterie.train.monitor.trackers.table import CSV
from coterie.train.monitor.trackers.tensorboard import TensorBoard
from coterie.train.monitor.trackers.wandb import WeightsAndBiases

Tracker = Annotated[
    CSV | TensorBoard | MLflow | WeightsAndBiases, union(CSV, TensorBoard, MLflow, WeightsAndBiases)
]

__all__ = ["CSV", "MLflow", "TensorBoard", "Tracker", "WeightsAndBiases"]
