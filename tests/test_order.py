"""The order of images and the random numbers of an image depend only on their arguments."""

import random

import numpy as np
import pytest
import torch

from hrvit_lab.train.data.order import epoch_order, rank_indices, sample_seed, seeded_sample


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), torch.rand(()).item()


def states() -> tuple[object, bytes, bytes]:
    numpy_state = np.random.get_state(legacy=True)
    return random.getstate(), numpy_state[1].tobytes(), torch.get_rng_state().numpy().tobytes()  # type: ignore[index]


def test_an_order_is_a_permutation_that_depends_only_on_seed_and_epoch() -> None:
    before = states()
    orders = {(seed, epoch): epoch_order(101, seed, epoch).tolist() for seed in range(4) for epoch in range(4)}
    assert all(sorted(order) == list(range(101)) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == 16  # (0, 1) and (1, 0) differ too
    torch.rand(5)
    assert epoch_order(101, 2, 3).tolist() == orders[2, 3]
    assert states()[:2] == before[:2]
    assert epoch_order(0, 0, 0).tolist() == []


def test_an_order_never_changes() -> None:
    """Checkpoints do not store the order; another order would change a resumed training."""
    assert epoch_order(8, 0, 0).tolist() == [3, 2, 5, 1, 0, 6, 4, 7]
    assert sample_seed(0, 0, 0) == 2558736989570252433


def test_every_position_in_an_order_is_equally_likely() -> None:
    """The position of image 0 over 2,000 epochs, compared with a uniform distribution over 10 positions (chi-squared, 9
    degrees of freedom)."""
    places = torch.stack([epoch_order(10, 5, epoch) for epoch in range(2000)]).argmin(dim=1).bincount(minlength=10)
    assert float(((places - 200.0) ** 2 / 200).sum()) < 27.9  # exceeded with probability 0.1 %; the order is fixed


@pytest.mark.parametrize(("num", "world_size"), [(101, 1), (101, 2), (101, 3), (2, 5), (0, 2)])
def test_ranks_share_all_images_once(num: int, world_size: int) -> None:
    shares = [list(rank_indices(num, rank, world_size)) for rank in range(world_size)]
    assert sorted(index for share in shares for index in share) == list(range(num))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for rank, share in enumerate(shares):
        assert all(index % world_size == rank for index in share)


def test_seeds_of_neighbours_are_independent() -> None:
    seeds = {
        (seed, epoch, index): sample_seed(seed, epoch, index)
        for seed in range(10) for epoch in range(10) for index in range(100)
    }  # fmt: skip
    assert len(set(seeds.values())) == len({seed & 0xFFFFFFFF for seed in seeds.values()}) == 10_000
    assert all(0 <= seed < 2**64 for seed in seeds.values())
    flipped = [(seeds[0, 0, index] ^ seeds[0, 0, index + 1]).bit_count() for index in range(99)]
    assert 28 < np.mean(flipped) < 36 and min(flipped) > 14  # of 64 bits, half
    bits = np.array([[seed >> bit & 1 for bit in range(64)] for seed in seeds.values()])
    assert abs(bits.mean(axis=0) - 0.5).max() < 0.025  # five standard deviations of a mean of fair bits
    assert len({sample_seed(0, 0, 2**40), sample_seed(0, 2**40, 0), sample_seed(2**40, 0, 0)}) == 3


def test_a_sample_draws_the_same_numbers_in_any_order() -> None:
    drawn = []
    for before in range(2):
        random.seed(before), np.random.seed(before), torch.manual_seed(before)
        with seeded_sample(3, 1, 7):
            drawn.append(draw())
    assert drawn[0] == drawn[1]
    others = []
    for key in ((3, 1, 8), (3, 2, 7), (4, 1, 7), (1, 3, 7)):
        with seeded_sample(*key):
            others.append(draw())
    for generator in range(3):
        assert len({numbers[generator] for numbers in [drawn[0], *others]}) == 5


def test_outside_the_context_the_generators_continue_unchanged() -> None:
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    undisturbed = [draw(), draw()]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    first = draw()
    with pytest.raises(ZeroDivisionError), seeded_sample(0, 0, 0):
        draw()
        raise ZeroDivisionError
    assert [first, draw()] == undisturbed
