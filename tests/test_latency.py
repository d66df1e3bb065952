"""Latency of one model: exact on a fake clock, close to the true value on the real one; all state is restored."""

import copy
import gc
import json
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from fake_clock import FakeClock
from torch import Tensor, nn

from hrvit_lab import create_model
from hrvit_lab.latency import engine
from hrvit_lab.latency.conditions import Reading
from hrvit_lab.latency.single import measure_latency
from hrvit_lab.latency.workload import OutOfDeviceMemory, ieee_float32, prepare

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class Timed(nn.Module):
    """Takes ``time_ms(n)`` on its n-th run, for any input."""

    def __init__(self, wait: Callable[[float], None], time_ms: Callable[[int], float]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.wait, self.time_ms, self.runs = wait, time_ms, 0

    def forward(self, x_BCHW: Tensor) -> Tensor:
        self.wait(self.time_ms(self.runs))
        self.runs += 1
        return x_BCHW


class Spy(nn.Module):
    """Records its input and settings in a list that copies share."""

    seen: list[dict[str, object]]

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(5, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        Spy.seen.append(
            {
                "input": x_BCHW.clone(),
                "layout": x_BCHW.is_contiguous(memory_format=torch.channels_last),
                "weight_layout": self.conv.weight.is_contiguous(memory_format=torch.channels_last),
                "weight_dtype": self.conv.weight.dtype,
                "training": any(module.training for module in self.modules()),
                "inference": torch.is_inference_mode_enabled(),
                "threads": torch.get_num_threads(),
                "collector": gc.isenabled(),
            }
        )
        return self.norm(self.conv(x_BCHW))


@pytest.fixture
def spy() -> Spy:
    Spy.seen = []
    return Spy()


def test_a_fake_clock_gives_exact_statistics() -> None:
    """Twenty calls of 8 ms are steady. In each round of the race, the model and its control run twice in random order,
    and the second run is timed. Calls of 1, 2, … 80 ms must be returned in their rounds."""
    clock = FakeClock()
    model = Timed(clock.pass_ms, lambda run: 8.0 if run < 20 else run - 19.0)
    result = measure_latency(model, 8, batch_size=4, min_runs=20, max_runs=20, clock=clock)
    assert result.steady
    assert result.warmup_samples_ms == pytest.approx([8.0] * 10)
    assert len(result.samples_ms) == 20
    for k, ms in enumerate(result.samples_ms):
        assert ms == pytest.approx(4 * k + 2) or ms == pytest.approx(4 * k + 4)
    assert {round(ms) % 4 for ms in result.samples_ms} == {0, 2}  # sometimes first, sometimes second
    assert result.median_ms == result.latency.value == pytest.approx(np.median(result.samples_ms))
    for q in (10, 50, 90, 99):
        assert result.percentile_ms(q) == pytest.approx(np.quantile(result.samples_ms, q / 100))
    assert result.throughput_img_s == pytest.approx(4e3 / result.median_ms)
    twins = [8 * k + 6 - ms for k, ms in enumerate(result.samples_ms)]
    assert result.control.value == pytest.approx(np.median(np.array(twins) / result.samples_ms))
    assert (result.stopped, result.device_samples_ms, result.device_median_ms) == ("rounds", (), None)


def test_the_measurement_stops_when_it_is_precise() -> None:
    clock = FakeClock()
    result = measure_latency(Timed(clock.pass_ms, lambda run: 8.0), 8, clock=clock)
    assert (result.stopped, len(result.samples_ms)) == ("precise", 10)
    assert result.control == pytest.approx((1.0, 1.0, 1.0))


def test_an_unsteady_model_is_reported_as_unsteady() -> None:
    clock = FakeClock()
    model = Timed(clock.pass_ms, lambda run: 100.0 * 1.1**run)
    result = measure_latency(model, 8, min_runs=3, max_seconds=0, max_warmup_seconds=4, clock=clock)
    assert result.steady is False
    assert (result.stopped, len(result.samples_ms)) == ("time", 7)


def test_too_few_runs_leave_steadiness_unknown() -> None:
    clock = FakeClock()
    model = Timed(clock.pass_ms, lambda run: 1000.0)
    assert measure_latency(model, 8, max_seconds=0, max_warmup_seconds=4, clock=clock).steady is None


def test_throttled_runs_are_stored_separately(monkeypatch: pytest.MonkeyPatch) -> None:
    """In every third reading the device is throttled and the model is slow."""
    clock = FakeClock()

    class Monitor:
        readings = -1  # the first is from before the race
        unknown = ""

        def read(self) -> Reading:
            self.readings += 1
            return Reading(throttled=("heat",) if self.readings % 3 == 0 and self.readings else ())

    monkeypatch.setattr(engine, "monitor", lambda device, nvml: Monitor())
    model = Timed(clock.pass_ms, lambda run: 30.0 if run >= 20 and (run - 20) // 4 % 3 == 2 else 10.0)
    result = measure_latency(model, 8, min_runs=12, max_runs=12, clock=clock)
    assert result.samples_ms == pytest.approx([10.0] * 8)
    assert result.discarded_samples_ms == pytest.approx([30.0] * 4)


def test_a_name_or_a_config_is_accepted() -> None:
    quick = {"max_runs": 3, "min_runs": 3, "max_warmup_seconds": 0.0}
    config = create_model("hrvit_nano").config
    for model in ("hrvit_nano:deploy", "timm:resnet18", config):
        assert measure_latency(model, 32, **quick).median_ms > 0  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="7 is not a model; give a module, a config, or a name such as 'hrvit_nano'"):
        measure_latency(7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="model 'hrvit_nan' is unknown; did you mean 'hrvit_nano'"):
        measure_latency("hrvit_nan")


def test_a_sleep_of_20_ms_is_measured_as_20_ms() -> None:
    """Or as the time that it really took: on a busy machine, a sleep can end late."""
    slept_ms: list[float] = []

    def sleep(ms: float) -> None:
        began = time.perf_counter()
        time.sleep(ms / 1e3)
        slept_ms.append((time.perf_counter() - began) * 1e3)

    model = Timed(sleep, lambda _: 20.0)
    result = measure_latency(model, 8, min_runs=15, max_runs=15, max_seconds=1e4)
    assert min(result.samples_ms) >= 20.0
    # Each timed run follows an untimed one; a round has four, and the reference's is the second or the last of them.
    rounds = [slept_ms[at : at + 4] for at in range(len(slept_ms) - 60, len(slept_ms), 4)]
    excess = [
        min(abs(sample - four[k]) for k in (1, 3)) for sample, four in zip(result.samples_ms, rounds, strict=True)
    ]
    assert np.median(excess) < 3.0


class Products(nn.Module):
    """Multiplies a matrix by itself a number of times: work in a known proportion."""

    matrix: Tensor

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.register_buffer("matrix", torch.randn(384, 384))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        for _ in range(self.times):
            x_BCHW = self.matrix @ self.matrix
        return x_BCHW


def test_a_planted_slowdown_by_a_factor_of_2_is_measured() -> None:
    """Measured by the CPU time of this thread, which excludes other programs. Other load still has an effect through
    shared caches, so both are measured alternately, and the fastest run of each is compared."""
    turns = [
        [
            measure_latency(Products(times), 8, threads=1, min_runs=10, max_runs=10, clock=time.thread_time).median_ms
            for times in (5, 10)
        ]
        for _ in range(6)
    ]
    once, twice = map(min, zip(*turns, strict=True))
    assert twice / once == pytest.approx(2, rel=0.15)


def test_the_model_runs_with_the_requested_settings(spy: Spy) -> None:
    result = measure_latency(
        spy, (6, 9), batch_size=2, dtype="bfloat16", memory_format="channels_last", threads=2, max_runs=10
    )
    for run in Spy.seen:
        assert run["input"].shape == (2, 5, 6, 9)  # type: ignore[attr-defined]
        assert run["input"].dtype == run["weight_dtype"] == torch.bfloat16  # type: ignore[attr-defined]
        assert run["layout"] and run["weight_layout"] and run["inference"]
        assert not run["training"] and not run["collector"]
        assert run["threads"] == 2
    assert (result.dtype, result.memory_format, result.threads) == ("bfloat16", "channels_last", 2)
    assert (result.resolution, result.batch_size, result.device) == ((6, 9), 2, "cpu")
    assert len(Spy.seen) == 2 * (2 * len(result.samples_ms) + len(result.warmup_samples_ms))


def test_the_input_is_reproducible_noise(spy: Spy) -> None:
    inputs = [prepare(spy, 64, batch_size=2, device="cpu", seed=seed).images_BCHW for seed in (0, 0, 1)]
    assert inputs[0].mean().item() == pytest.approx(0, abs=0.05)
    assert inputs[0].std().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(inputs[0], inputs[1])
    assert not torch.equal(inputs[0], inputs[2])


def test_the_model_and_global_state_are_restored(spy: Spy) -> None:
    spy.train()
    spy.norm.eval()  # some modules in each mode, so that one flag cannot restore the state
    state = copy.deepcopy(spy.state_dict())
    random_state = torch.get_rng_state()
    threads = torch.get_num_threads()
    measure_latency(spy, 8, dtype="float16", memory_format="channels_last", threads=threads + 1, max_runs=10)
    assert spy.training and spy.conv.training and not spy.norm.training
    assert spy.conv.weight.dtype == torch.float32
    assert not spy.conv.weight.is_contiguous(memory_format=torch.channels_last)
    for name, tensor in spy.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.get_num_threads() == threads
    assert gc.isenabled() and not torch.is_inference_mode_enabled()


PLACES = [("generic", "all"), *((b, op) for b in ("cuda", "mkldnn") for op in ("all", "matmul", "conv", "rnn"))]


def precisions() -> dict[tuple[str, str], str]:
    """The precision that torch would use for float32, by operator."""
    return {place: torch._C._get_fp32_precision_getter(*place) for place in PLACES}


def ask_for(library: str, operator: str, precision: str) -> Callable[[], object]:
    return lambda: torch._C._set_fp32_precision_setter(library, operator, precision)


@pytest.mark.parametrize(
    "asked",
    [
        lambda: None,
        lambda: torch.set_float32_matmul_precision("high"),
        lambda: torch.set_float32_matmul_precision("medium"),  # bfloat16 in oneDNN
        lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
        lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
        ask_for("generic", "all", "tf32"),
        ask_for("cuda", "matmul", "tf32"),
        ask_for("mkldnn", "all", "bf16"),
        ask_for("mkldnn", "matmul", "bf16"),
    ],
)
def test_float32_is_ieee_whatever_was_set_before(asked: Callable[[], object]) -> None:
    defaults = precisions()
    try:
        asked()
        before = precisions()
        with pytest.raises(ZeroDivisionError), ieee_float32():
            assert set(precisions().values()) == {"ieee"}
            # The older switches agree; kernels raise where they do not.
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32
            _ = 1 / 0
        assert precisions() == before
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = True
        for place, precision in defaults.items():
            torch._C._set_fp32_precision_setter(*place, precision)
    assert torch.backends.cudnn.allow_tf32


def test_the_older_precision_settings_are_restored() -> None:
    torch.set_float32_matmul_precision("high")
    try:
        with ieee_float32():
            pass
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")


def test_an_out_of_memory_error_names_the_workload(spy: Spy) -> None:
    with pytest.raises(OutOfDeviceMemory, match=r"batch 10000000000 at 64×64, float32, contiguous, on ") as caught:
        measure_latency(spy, 64, batch_size=10**10)
    assert isinstance(caught.value, MemoryError)


def test_an_error_of_the_model_is_raised_unchanged() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        measure_latency(nn.Linear(7, 7), 8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "tpu"}, "device 'tpu' is unknown; use cpu, cuda, cuda:N or mps"),
        ({"device": "cuda:x"}, "device 'cuda:x' is unknown"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not present: torch sees"),
        ({"dtype": "int8"}, "dtype 'int8' is unknown; use one of float32, bfloat16, float16"),
        ({"memory_format": "nchw"}, "memory_format 'nchw' is unknown; use one of contiguous, channels_last"),
        ({"batch_size": 0}, "batch_size is 0; use at least 1"),
        ({"threads": 0}, "threads is 0; use at least 1"),
        ({"min_runs": 5, "max_runs": 4}, "min_runs 5 and max_runs 4"),
        ({"min_runs": 2}, "min_runs 2"),
        ({"half_width": 0.0}, "half_width is 0.0"),
    ],
)
def test_invalid_settings_are_named(spy: Spy, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure_latency(spy, 8, **settings)  # type: ignore[arg-type]
    assert Spy.seen == []


def test_the_result_is_complete_json(spy: Spy) -> None:
    result = measure_latency(spy, 8, max_runs=12, max_seconds=1e4)
    record = json.loads(json.dumps(result.to_dict()))
    assert record["samples_ms"] == list(result.samples_ms)
    assert record["runs"] == len(result.samples_ms)
    assert record["min_ms"] == min(result.samples_ms) <= record["p10_ms"] <= record["p50_ms"]
    assert record["p50_ms"] == record["median_ms"] == float(np.median(result.samples_ms))
    assert record["p50_ms"] <= record["p90_ms"] <= record["p99_ms"] <= max(result.samples_ms)
    assert record["device_name"]
    assert record["environment"]["versions"]["torch"] == torch.__version__
    assert record["conditions"].keys() >= {"other_cores_busy", "remarks"}
    assert record["control"].keys() == record["latency"].keys() == {"value", "low", "high"}


def test_the_network_is_timed_at_an_odd_size() -> None:
    result = measure_latency(create_model("hrvit_micro"), (50, 70), max_runs=10, max_seconds=1)
    assert result.resolution == (50, 70)
    assert 0 < min(result.samples_ms) <= result.median_ms


@pytest.mark.gpu
@needs_cuda
def test_cuda_measures_device_time_and_wall_time_separately() -> None:
    result = measure_latency(create_model("hrvit_micro"), 64, device="cuda", max_runs=30)
    assert len(result.device_samples_ms) == len(result.samples_ms)
    for device_ms, wall_ms in zip(result.device_samples_ms, result.samples_ms, strict=True):
        assert 0 < device_ms <= wall_ms
    assert result.device_name == torch.cuda.get_device_name()


@pytest.mark.gpu
@needs_cuda
def test_cuda_timing_waits_for_the_work() -> None:
    """Queueing a large product takes microseconds; a time of that order would mean that the work was not awaited."""

    class Product(nn.Module):
        def forward(self, x_BCHW: Tensor) -> Tensor:
            return x_BCHW @ x_BCHW

    n, batch = 4096, 8
    result = measure_latency(Product(), n, batch_size=batch, device="cuda", max_runs=20)
    at_a_petaflop_ms = 2 * 3 * batch * n**3 / 1e15 * 1e3
    assert result.median_ms > at_a_petaflop_ms
    assert result.device_median_ms is not None and result.device_median_ms > at_a_petaflop_ms


@pytest.mark.gpu
@needs_cuda
def test_cuda_out_of_memory_is_the_same_error(spy: Spy) -> None:
    with pytest.raises(OutOfDeviceMemory, match="batch 100000 at 1024×1024"):
        prepare(spy, 1024, batch_size=100_000, device="cuda")
