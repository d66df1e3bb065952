"""Peak memory of inference."""

from hrvit_lab.study.groups.group import Figures, Group, ProbeInput


def measure(inputs: ProbeInput) -> Figures:
    """Peak memory at the batch size and dtype of the latency measurement."""
    from hrvit_lab.latency.memory import measure_peak_memory
    from hrvit_lab.latency.models import build_measurable

    same_as_latency = {key: inputs.latency[key] for key in ("batch_size", "dtype") if key in inputs.latency}
    peak_mib = measure_peak_memory(
        build_measurable(inputs.config, inputs.seed, inputs.resolution),
        inputs.resolution,
        device=inputs.device,
        **same_as_latency,
    )
    return {"peak_memory_mib": peak_mib}


MEMORY = Group(
    key="memory",
    label="peak memory",
    version=1,
    depends_on=("resolution", "latency.batch_size", "latency.dtype", "device", "hardware", "torch"),
    probe=measure,
    alone=True,
)
