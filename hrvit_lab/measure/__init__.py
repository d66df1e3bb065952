"""Measuring: the metrics there are, and the probes that yield them.

To add a metric: a function in a file here, called by a probe, and a line in ``METRICS``. Tables, plots, app
and docs read label, unit and direction from that line alone. A new group takes a line in ``PROBES`` too.
"""

from collections.abc import Callable
from typing import Any

from hrvit_lab.measure.accuracy import accuracy_probe
from hrvit_lab.measure.environment import environment
from hrvit_lab.measure.latency import LatencyResult, measure_latency
from hrvit_lab.measure.memory import measure_peak_memory
from hrvit_lab.measure.metric import Metric, format_value
from hrvit_lab.measure.probes import SPREAD, ProbeInput, cost_probe, latency_probe, memory_probe
from hrvit_lab.measure.workload import OutOfDeviceMemory

METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric("params", "parameters", "", "lower", "cost", "Learned parameters, buffers left out."),
        Metric(
            "macs", "MACs", "", "lower", "cost",
            "Multiply-accumulates of convolutions, linears and both attention products for one image, none "
            "for padding; FLOPs are twice as many.",
        ),
        Metric(
            "macs_padded", "MACs, padded windows", "", "lower", "cost",
            "MACs with every attention window padded to full size, as the published release runs them.",
        ),
        Metric(
            "macs_paper", "MACs, the paper's count", "", "lower", "cost",
            "Convolutions, linears and half of the padded attention products: the FLOPs of arXiv 2111.01236.",
        ),
        Metric(
            "activations", "activations", "", "lower", "cost",
            "Elements in the outputs of convolutions, linears and attention products for one image.",
        ),
        Metric("weight_mib", "weights", "MiB", "lower", "cost", "Parameters and running statistics as float32."),
        Metric(
            "moved_mib", "moved memory", "MiB", "lower", "cost",
            "Maps and weights that convolutions, linears and fused attention read and write for one image, each once "
            "an operator, as float32: the floor of a roofline.",
        ),
        Metric(
            "latency_ms", "latency", "ms", "lower", "latency",
            "Median wall time of one batch's forward pass, warmed up until steady.", measured=True,
        ),
        Metric(
            "throughput_img_s", "throughput", "img/s", "higher", "latency",
            "Batch size by median latency.", measured=True,
        ),
        Metric(
            "peak_memory_mib", "peak memory", "MiB", "lower", "memory",
            "Most memory held at once by weights, input and what is computed from them, in inference.",
            measured=True,
        ),
        Metric(
            "top1", "top-1 (proxy)", "%", "higher", "accuracy",
            "Validation images classified right after a short training from scratch on a small data set.",
            per_seed=True, measured=True,
        ),
        Metric(
            "val_loss", "validation loss (proxy)", "nats", "lower", "accuracy",
            "Mean cross-entropy on the validation images after that training.", per_seed=True, measured=True,
        ),
        Metric(
            "train_seconds", "training time", "s", "lower", "accuracy",
            "Wall time of that training, validation included.", per_seed=True, measured=True,
        ),
    )
}  # fmt: skip
"""Every metric by its key, in the order of columns."""

PROBES: dict[str, Callable[[ProbeInput], dict[str, Any]]] = {
    "cost": cost_probe,
    "latency": latency_probe,
    "memory": memory_probe,
    "accuracy": accuracy_probe,
}
"""Every group's probe: one call is one trial."""

__all__ = [
    "METRICS",
    "PROBES",
    "SPREAD",
    "LatencyResult",
    "Metric",
    "OutOfDeviceMemory",
    "ProbeInput",
    "environment",
    "format_value",
    "measure_latency",
    "measure_peak_memory",
]
