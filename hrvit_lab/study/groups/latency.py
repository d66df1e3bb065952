"""Latency and throughput, measured by the latency lab."""

from hrvit_lab.study.groups.group import Figures, Group, ProbeInput


def measure(inputs: ProbeInput) -> Figures:
    """Median wall time of a batch with its 95 % interval, minimum and percentiles of the runs, throughput; raw
    measurements under ``samples``."""
    from hrvit_lab.latency.models import build_measurable
    from hrvit_lab.latency.single import measure_latency

    result = measure_latency(
        build_measurable(inputs.config, inputs.seed, inputs.resolution),
        inputs.resolution,
        device=inputs.device,
        **inputs.latency,
    )
    return {
        "latency_ms": result.median_ms,
        "latency_ms_min": min(result.samples_ms),
        **{f"latency_ms_p{q}": result.percentile_ms(q) for q in (10, 90, 99)},
        "latency_ms_low": result.latency.low,
        "latency_ms_high": result.latency.high,
        "throughput_img_s": result.throughput_img_s,
        "samples": result.to_dict(),
        "disturbed": {metric.key: list(result.disturbed) for metric in LATENCY.metrics} if result.disturbed else {},
    }


LATENCY = Group(
    key="latency",
    label="latency",
    version=1,
    depends_on=("resolution", "latency", "device", "hardware", "torch"),
    probe=measure,
    alone=True,
)
