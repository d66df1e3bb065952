"""Random numbers from a seed, without effect on other generators: on the CPU and on the named device only."""

import pytest
import torch

from hrvit_lab.network.seeding import seeded


def first_numbers(seed: int) -> list[float]:
    """The numbers that a separate generator gives after that seed."""
    return torch.rand(3, generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> tuple[torch.Generator, torch.Generator]:
    """Two fake CUDA devices whose generators are on the CPU; the second is the current device."""
    generators = torch.Generator().manual_seed(10), torch.Generator().manual_seed(11)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "default_generators", generators)
    return generators


@pytest.mark.parametrize("ends_by", [None, KeyboardInterrupt])
def test_numbers_start_from_the_seed_and_the_generator_continues_afterwards(
    ends_by: type[BaseException] | None,
) -> None:
    torch.manual_seed(1)
    torch.rand(1)
    expected = torch.rand(2).tolist()
    torch.manual_seed(1)
    torch.rand(1)
    try:
        with seeded(7):
            assert torch.rand(3).tolist() == first_numbers(7)
            if ends_by is not None:
                raise ends_by
    except KeyboardInterrupt:
        pass
    assert torch.rand(2).tolist() == expected


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_no_other_device_is_seeded(
    device: str, two_gpus: tuple[torch.Generator, torch.Generator], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``torch.manual_seed`` would seed every CUDA device, and nothing would restore them."""
    seeded_all: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded_all.append)
    before = two_gpus[1].get_state()
    with seeded(7, device):
        assert torch.equal(two_gpus[1].get_state(), before)
    assert torch.equal(two_gpus[1].get_state(), before)
    assert not seeded_all


@pytest.mark.parametrize(("device", "index"), [("cuda:0", 0), ("cuda:1", 1), ("cuda", 1)])
def test_the_named_device_is_seeded_and_restored(
    device: str, index: int, two_gpus: tuple[torch.Generator, torch.Generator]
) -> None:
    states = [generator.get_state() for generator in two_gpus]
    with seeded(7, device):
        assert torch.rand(3, generator=two_gpus[index]).tolist() == first_numbers(7)
        assert torch.rand(3).tolist() == first_numbers(7)
    assert all(torch.equal(generator.get_state(), state) for generator, state in zip(two_gpus, states, strict=True))


@pytest.mark.gpu
def test_cuda_numbers_equal_those_of_torch_and_the_generator_continues_afterwards() -> None:
    torch.cuda.manual_seed(1)
    expected = torch.rand(2, device="cuda").tolist()
    torch.cuda.manual_seed(1)
    with seeded(7, "cuda"):
        ours = torch.rand(3, device="cuda").tolist()
    assert torch.rand(2, device="cuda").tolist() == expected
    torch.cuda.manual_seed(7)
    assert ours == torch.rand(3, device="cuda").tolist()
