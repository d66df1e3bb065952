"""Theoretical peak performance of a CPU: FMA units × vector width × clock rate.

A measured speed above the peak indicates a wrong timer. Floating-point operations per cycle are from AMD's Software
Optimization Guides (families 17h, 19h, 1Ah) and Intel's Optimization Reference Manual. Clock rates are the highest
boost clock of any product with these cores, so that the peak is an upper bound for all of them.
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
        vendor, family, models: as in /proc/cpuinfo.
        flop: floating-point operations per cycle in float32: FMA units × lanes × 2.
        boost_ghz: highest boost clock of any product.
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
"""Documented x86 cores. Zen 4 executes 512-bit instructions on 256-bit units; Intel's client chips with AVX-512 have
one 512-bit unit."""


@dataclass(frozen=True)
class Peak:
    """Upper bound on the speed of any matrix product on a number of cores.

    Attributes:
        flop_s: floating-point operations per second.
        formula: how it is computed, in words.
    """

    flop_s: float
    formula: str


def cpu_peak(dtype: str, threads: int) -> Peak | None:
    """The published peak of this machine's CPU with ``threads`` busy cores; None if it is unknown.

    Args:
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        threads: number of threads; at most one per core counts.
    """
    try:
        cpuinfo = CPUINFO.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return published_peak(cpuinfo, dtype, threads, _kernels_max_ghz())


def published_peak(cpuinfo: str, dtype: str, threads: int, max_ghz: float | None = None) -> Peak | None:
    """The peak for the text of a /proc/cpuinfo; None for a CPU that is not in ``CORES``.

    Args:
        max_ghz: the highest clock rate, if known; None takes the highest of any product with these cores.
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
    if core is None or "fma" not in flags:  # a virtual machine may hide instructions that the core has
        return None
    flop = _flop_a_cycle(core, dtype, flags)
    cores = min(threads, cpuinfo.count("processor\t") or threads)
    ghz = max_ghz or core.boost_ghz
    count = f"{cores} core{'s' * (cores > 1)}"
    return Peak(cores * flop * ghz * 1e9, f"{core.name}, {count} × {flop} operations per cycle × at most {ghz:.2f} GHz")


def _flop_a_cycle(core: Core, dtype: str, flags: set[str]) -> int:
    """Operations per cycle; two-byte formats without their own instructions are computed in float32."""
    short = {"bfloat16": "bf16", "float16": "fp16"}.get(dtype)
    if short and f"amx_{short}" in flags:
        return AMX_FLOP
    full = core.flop if "avx512f" in flags else min(core.flop, 32)
    return 2 * full if short and f"avx512_{short}" in flags else full


def _kernels_max_ghz() -> float | None:
    """The highest clock rate that the kernel reports, including boost; None if it reports none."""
    try:
        if (CPUFREQ / "scaling_driver").read_text().strip() == "acpi-cpufreq":  # excludes boost
            return None
        return int((CPUFREQ / "cpuinfo_max_freq").read_text()) / 1e6
    except (OSError, ValueError):
        return None
