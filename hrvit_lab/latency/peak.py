"""The most that a processor can compute, from what its makers publish: FMA units × vector width × clock.

A measured speed above it means that the clock is wrong. Floating-point operations a cycle are those of AMD's Software
Optimization Guides (families 17h, 19h, 1Ah) and of Intel's Optimization Reference Manual; clocks are the highest boost
of any product with these cores, so that the product of both is a bound for all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
CPUFREQ = Path("/sys/devices/system/cpu/cpu0/cpufreq")

AMX_FLOP = 2048
"""A tile product of 16 × 16 × 32 two-byte numbers takes 16 cycles (Intel's manual, chapter on AMX)."""


@dataclass(frozen=True)
class Core:
    """A line of ``CORES``.

    Attributes:
        name: of the microarchitecture.
        vendor, family, models: as /proc/cpuinfo has them.
        flop: floating-point operations a cycle in float32: FMA units × lanes × 2.
        boost_ghz: highest clock of any product.
    """

    name: str
    vendor: str
    family: int
    models: Sequence[int]
    flop: int
    boost_ghz: float


AMD, INTEL = "AuthenticAMD", "GenuineIntel"

CORES = (
    Core("Zen", AMD, 0x17, (0x01, 0x08, 0x11, 0x18, 0x20), 16, 4.4),
    Core("Zen 2", AMD, 0x17, range(0x30, 0xB0), 32, 4.7),
    Core("Zen 3", AMD, 0x19, (*range(0x00, 0x10), *range(0x20, 0x60)), 32, 5.0),
    Core("Zen 4", AMD, 0x19, (*range(0x10, 0x20), *range(0x60, 0x80), *range(0xA0, 0xB0)), 32, 5.7),
    Core("Zen 5", AMD, 0x1A, range(0x00, 0x80), 64, 5.7),
    Core("Haswell", INTEL, 6, (0x3C, 0x3F, 0x45, 0x46), 32, 4.4),
    Core("Broadwell", INTEL, 6, (0x3D, 0x47, 0x4F, 0x56), 32, 4.0),
    Core("Skylake", INTEL, 6, (0x4E, 0x5E, 0x8E, 0x9E, 0xA5, 0xA6), 32, 5.3),
    Core("Skylake-SP, Cascade Lake or Cooper Lake", INTEL, 6, (0x55,), 64, 5.1),
    Core("Ice Lake-SP", INTEL, 6, (0x6A, 0x6C), 64, 4.1),
    Core("Ice Lake, Tiger Lake or Rocket Lake", INTEL, 6, (0x7D, 0x7E, 0x8C, 0x8D, 0xA7), 32, 5.3),
    Core("Alder Lake or Raptor Lake", INTEL, 6, (0x97, 0x9A, 0xB7, 0xBA, 0xBF), 32, 6.2),
    Core("Sapphire Rapids or Emerald Rapids", INTEL, 6, (0x8F, 0xCF), 64, 4.8),
    Core("Granite Rapids", INTEL, 6, (0xAD, 0xAE), 64, 4.8),
)
"""Documented cores of x86. Zen 4 runs its 512-bit instructions on units of 256 bits; client chips of Intel with AVX-512
have one such unit."""


@dataclass(frozen=True)
class Peak:
    """A bound on the speed of any product on so many cores.

    Attributes:
        flop_s: floating-point operations a second.
        said: how it comes about, in words.
    """

    flop_s: float
    said: str


def cpu_peak(dtype: str, threads: int) -> Peak | None:
    """The published peak of this machine's processor with ``threads`` cores at work; None where it is unknown.

    Args:
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        threads: at most one a core counts.
    """
    try:
        cpuinfo = CPUINFO.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return published_peak(cpuinfo, dtype, threads, _kernels_max_ghz())


def published_peak(cpuinfo: str, dtype: str, threads: int, max_ghz: float | None = None) -> Peak | None:
    """The bound that a /proc/cpuinfo stands for; None for a processor that ``CORES`` lacks.

    Args:
        max_ghz: the highest clock, where it is known; None takes the highest of any product with these cores.
    """
    facts: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    try:
        who = facts["vendor_id"], int(facts["cpu family"]), int(facts["model"])
    except (KeyError, ValueError):
        return None
    flags = set(facts.get("flags", "").split())
    core = next((c for c in CORES if (c.vendor, c.family) == who[:2] and who[2] in c.models), None)
    if core is None or "fma" not in flags:  # a virtual machine may hide units that the core has
        return None
    flop = _flop_a_cycle(core, dtype, flags)
    cores = min(threads, cpuinfo.count("processor\t") or threads)
    ghz = max_ghz or core.boost_ghz
    count = f"{cores} core{'s' * (cores > 1)}"
    return Peak(cores * flop * ghz * 1e9, f"{core.name}, {count} × {flop} operations a cycle × {ghz:.2f} GHz at most")


def _flop_a_cycle(core: Core, dtype: str, flags: set[str]) -> int:
    """Two-byte formats without instructions of their own are computed in float32."""
    short = {"bfloat16": "bf16", "float16": "fp16"}.get(dtype)
    if short and f"amx_{short}" in flags:
        return AMX_FLOP
    full = core.flop if "avx512f" in flags else min(core.flop, 32)
    return 2 * full if short and f"avx512_{short}" in flags else full


def _kernels_max_ghz() -> float | None:
    """The highest clock that the kernel knows, boost included; None where it does not tell."""
    try:
        if (CPUFREQ / "scaling_driver").read_text().strip() == "acpi-cpufreq":  # leaves boost out
            return None
        return int((CPUFREQ / "cpuinfo_max_freq").read_text()) / 1e6
    except (OSError, ValueError):
        return None
