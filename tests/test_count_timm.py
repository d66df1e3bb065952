"""Every timm architecture is counted or refused in one sentence; the reference is torch's counter."""

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from hrvit_lab import PRESETS
from hrvit_lab.config import SEGMENTERS
from hrvit_lab.cost.count import count
from hrvit_lab.cost.dispatch import no_fast_path
from hrvit_lab.network.baselines import TimmConfig, build_network

NAMES = [name for name in timm.list_models() if name not in PRESETS | SEGMENTERS]


def size_of(name: str) -> tuple[int, int]:
    pretrained = timm.get_pretrained_cfg(name)
    height, width = pretrained.input_size[1:] if pretrained is not None else (224, 224)
    return height, width


def smallest(names: list[str]) -> str:
    """The member of the family whose name says that it is small; otherwise the one with the shortest name."""
    small = ("atto", "femto", "pico", "nano", "xxs", "xxt", "tiny", "_s", "b0", "18", "small")
    ranks = {name: next((i for i, word in enumerate(small) if word in name), len(small)) for name in names}
    return min(names, key=lambda name: (ranks[name], len(name), name))


FAMILIES = {
    module: smallest(names)
    for module in timm.list_modules()
    if (names := [name for name in timm.list_models(module=module) if name in set(NAMES)])
}


def check(name: str) -> None:
    config, size = TimmConfig(f"timm:{name}"), size_of(name)
    counts = count(config, size)
    with torch.device("meta"):
        model = build_network(config, size).eval()
    with torch.no_grad(), no_fast_path(), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, config.in_chans, *size, device="meta"))
    assert counts.params == sum(parameter.numel() for parameter in model.parameters())
    assert 2 * counts.macs == counter.get_total_flops()


@pytest.mark.parametrize("name", list(FAMILIES.values())[::16])
def test_every_sixteenth_family_has_the_counts_of_torchs_counter(name: str) -> None:
    check(name)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_has_the_counts_of_torchs_counter(name: str) -> None:
    check(name)
