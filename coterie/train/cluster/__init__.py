"""Planning a run on many devices: layouts, memory of each, communication, time."""

from coterie.train.cluster.devices import DEVICES, DeviceFigures, here
from coterie.train.cluster.layout import Layout
from coterie.train.cluster.planning import ClusterPlan, Estimate, plan_cluster

__all__ = ["DEVICES", "ClusterPlan", "DeviceFigures", "Estimate", "Layout", "here", "plan_cluster"]
