"""A space of networks as integers: a genome has one index for every choice, and every genome is a valid network.

A gene without effect (of a missing branch, or whose condition is not met) is 0. Two genomes may still be one network,
for example with two head dims that are above the width. A width that is invalid with its head dim, ratio or parts is
repaired to the nearest valid choices of its branch. A value that all branches share is not changed: a space in which it
has no valid width in a branch is refused.
"""

import itertools
import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from hrvit_lab.config import MAX_BRANCHES, PER_BRANCH, TABLES, ConfigError, HRViTConfig, with_branches
from hrvit_lab.config.text import shortened
from hrvit_lab.search.spec import Dimension, SearchSpec
from hrvit_lab.study.axes import AXES, apply

Genome = tuple[int, ...]
MAX_GENES = 300
MAX_BUILT = 2000
MAX_CHECKED = 20_000
MAX_TOGETHER = 1_000_000
"""Combinations of the fields `TOGETHER` in a branch: all are tried before a space is refused."""
TOGETHER = ("widths", "head_dims", "mlp_ratios")
"""Fields that are repaired together, since a width must fit the head dim and the ratio of its branch."""


class Gene(NamedTuple):
    """One choice.

    Attributes:
        field: of the config, or a derived axis.
        place: ``()`` for the whole network, ``(branch,)``, or ``(stage, branch)`` for depths.
        choices: the values.
    """

    field: str
    place: tuple[int, ...]
    choices: tuple[Any, ...]


class Space:
    """The networks of a search file.

    Attributes:
        genes: the choices of a genome, in its order.
    """

    def __init__(self, spec: SearchSpec) -> None:
        self.spec = spec
        self.base = spec.base_config
        branches = spec.space.get("branches", Dimension(choices=[self.base.num_branches])).choices
        self.bases = {number: with_branches(self.base, number) for number in branches}
        self.genes = tuple(_genes(spec, self.bases[max(branches)]))
        if len(self.genes) > MAX_GENES:
            raise ConfigError(f"space: {len(self.genes)} choices in one network; use at most {MAX_GENES}")
        self._place = {(gene.field, gene.place): index for index, gene in enumerate(self.genes)}
        self._check_together()
        self._conditions = [self._conditions_of(gene) for gene in self.genes]
        self._dumped = {number: base.model_dump() | {"name": ""} for number, base in self.bases.items()}
        self._present = {number: [_exists(gene, base) for gene in self.genes] for number, base in self.bases.items()}
        self._nearest = lru_cache(maxsize=100_000)(self._search_nearest)
        self._valid_widths = lru_cache(maxsize=100_000)(_valid_widths)
        self._check()

    @property
    def size(self) -> int:
        """Number of combinations of choices, valid or not."""
        return math.prod(len(gene.choices) for gene in self.genes)

    @cached_property
    def lengths(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Number of choices of every gene, (genes,)."""
        return np.array([len(gene.choices) for gene in self.genes])

    # -- genome to network ---------------------------------------------------------------------------------------

    def config(self, genome: Genome) -> HRViTConfig:
        """The network of a genome that `repaired` returned."""
        fields = dict(self._base_of(genome))
        changes: dict[str, Any] = {}
        for index, gene in enumerate(self.genes):
            if not self._is_active(index, genome):
                continue
            value = gene.choices[genome[index]]
            if gene.place:
                fields[gene.field] = _placed(fields[gene.field], gene.place, value)
            elif gene.field in AXES:
                changes[gene.field] = value
            elif gene.field in PER_BRANCH and not isinstance(value, list | tuple):
                fields[gene.field] = (value,) * len(fields["widths"])
            else:
                fields[gene.field] = value
        if fields["topology"] == "pyramid":
            fields["stem_width"] = fields["widths"][0]
        changes.pop("branches", None)
        config = HRViTConfig(**fields)
        changed = apply(config, changes) if changes else config
        assert isinstance(changed, HRViTConfig)
        return changed

    def repaired(self, genome: Sequence[int]) -> Genome:
        """The nearest genome that is a valid network, with 0 for genes without effect; itself if it is one."""
        fixed = [int(index) for index in genome]
        self._silence(fixed)
        values = self._values(fixed)
        for branch in range(len(values["widths"])):
            self._repair(fixed, values, branch)
        return tuple(fixed)

    def random(self, rng: np.random.Generator) -> Genome:
        """A random genome: every choice is drawn uniformly, then repaired."""
        return self.repaired(rng.integers(0, self.lengths).tolist())

    def all(self) -> Iterator[Genome]:
        """Every genome of a valid network, once; some may be the same network."""
        for indices in itertools.product(*(range(len(gene.choices)) for gene in self.genes)):
            if self.repaired(indices) == indices:
                yield indices

    def examples(self) -> dict[str, Genome]:
        """Networks in which every number of branches and every part of the space occurs, by what was chosen.

        Other choices are the first ones, and the number of branches the largest.
        """
        found: dict[Genome, str] = {}
        for index, gene in enumerate(self.genes):
            if gene.field not in (*TABLES, "branches"):
                continue
            where = f"{gene.field}[{gene.place[0]}]" if gene.place else gene.field
            for choice, value in enumerate(gene.choices):
                genome = self._first()
                genome[index] = choice
                for other, values in self._conditions[index]:
                    meets = (i for i, chosen in enumerate(self.genes[other].choices) if chosen in values)
                    genome[other] = next(meets, 0)
                found.setdefault(self.repaired(genome), f"{where} = {shortened(value)}")
        return {name: genome for genome, name in found.items()}

    def _first(self) -> list[int]:
        """The first choice of every gene, and most branches."""
        genome = [0] * len(self.genes)
        if (branches := self._place.get(("branches", ()))) is not None:
            genome[branches] = int(np.argmax(self.genes[branches].choices))
        return genome

    # -- which genes count -----------------------------------------------------------------------------------------

    def _base_of(self, genome: Sequence[int]) -> dict[str, Any]:
        return self._dumped[self._branches(genome)]

    def _branches(self, genome: Sequence[int]) -> int:
        index = self._place.get(("branches", ()))
        return self.base.num_branches if index is None else int(self.genes[index].choices[genome[index]])

    def _conditions_of(self, gene: Gene) -> list[tuple[int, tuple[Any, ...]]]:
        """Genes that this one depends on, each with the values for which it has an effect."""
        found = []
        for other, values in self.spec.space[gene.field].when.items():
            place = gene.place if (other, gene.place) in self._place else ()
            found.append((self._place[other, place], tuple(values)))
        return found

    def _is_active(self, index: int, genome: Sequence[int]) -> bool:
        """Whether a gene changes the network."""
        if not self._present[self._branches(genome)][index]:
            return False
        conditions = self._conditions[index]
        return not conditions or all(
            self.genes[other].choices[genome[other]] in values and self._is_active(other, genome)
            for other, values in conditions
        )

    def _silence(self, genome: list[int]) -> None:
        """Set genes without effect to 0: first genes of missing branches, then those with unmet conditions."""
        present = self._present[self._branches(genome)]
        for index, exists in enumerate(present):
            if not exists:
                genome[index] = 0
        for index, conditions in enumerate(self._conditions):
            if conditions and not self._is_active(index, genome):
                genome[index] = 0

    # -- repair --------------------------------------------------------------------------------------------------

    def _values(self, genome: Sequence[int]) -> dict[str, Any]:
        """The fields that the rules of widths read, by branch, before repair."""
        base = self._base_of(genome)
        branches = range(len(base["widths"]))
        values: dict[str, Any] = {"topology": base["topology"]}
        for field in (*TOGETHER, "attention", "ffn"):
            values[field] = [self._value(genome, field, branch, base) for branch in branches]
        for field in ("shortcut", "stem"):
            values[field] = self._value(genome, field, None, base)
        return values

    def _value(self, genome: Sequence[int], field: str, branch: int | None, base: dict[str, Any]) -> Any:
        index = self._gene_of(field, branch)
        if index is not None and self._is_active(index, genome):
            value = self.genes[index].choices[genome[index]]
            return value[branch] if isinstance(value, list | tuple) and branch is not None else value
        return base[field] if branch is None else base[field][branch]

    def _gene_of(self, field: str, branch: int | None) -> int | None:
        if branch is not None and (field, (branch,)) in self._place:
            return self._place[field, (branch,)]
        return self._place.get((field, ()))

    def _repair(self, genome: list[int], values: dict[str, Any], branch: int) -> None:
        """Move the width of a branch, and if need be its head dim and ratio, to the nearest valid choices."""
        free = [self._place.get((field, (branch,))) for field in TOGETHER]
        free = [index if index is not None and self._is_active(index, genome) else None for index in free]
        now = tuple(genome[index] if index is not None else -1 for index in free)
        rule = (values["attention"][branch], values["ffn"][branch], values["shortcut"], values["stem"])
        fixed = tuple(
            None if index is not None else values[field][branch] for field, index in zip(TOGETHER, free, strict=True)
        )
        found = self._nearest(branch, rule, now, fixed)
        for index, choice in zip(free, found, strict=True):
            if index is not None:
                genome[index] = choice

    def _search_nearest(
        self, branch: int, rule: tuple[Any, ...], now: tuple[int, ...], fixed: tuple[Any, ...]
    ) -> tuple[int, ...]:
        """The nearest indices of width, head dim and ratio that are valid together; -1 for those that are fixed.

        Of equally near ones, those that move the ratio least, then the head dim; then those with lower indices.
        """
        widths, head_dims, ratios = (
            tuple(self.genes[self._place[field, (branch,)]].choices) if index >= 0 else (value,)
            for field, index, value in zip(TOGETHER, now, fixed, strict=True)
        )
        start, start_dim, start_ratio = (max(0, index) for index in now)
        opens = self.base.topology == "pyramid" and branch == 0  # its width must also be valid for the stem
        nearest: tuple[int, ...] | None = None
        for steps, dim, ratio in _pairs_by_distance(start_dim, start_ratio, len(head_dims), len(ratios)):
            if nearest and steps > nearest[0]:
                break
            for width in _around(self._valid_widths((opens, *rule), widths, head_dims[dim], ratios[ratio]), start):
                away = abs(width - start)
                found = (steps + away, abs(ratio - start_ratio), abs(dim - start_dim), away, width, dim, ratio)
                nearest = min(nearest or found, found)
        if nearest:
            return tuple(choice if index >= 0 else -1 for choice, index in zip(nearest[-3:], now, strict=True))
        attention, ffn, shortcut, _ = rule
        shared = [f"{name} {value}" for name, value in zip(TOGETHER, fixed, strict=True) if value is not None]
        raise ConfigError(
            f"space: branch {branch} has no valid width with attention {attention}, ffn {ffn}, shortcut {shortcut}"
            f"{''.join(f', {text}' for text in shared)}; give other choices of widths, head_dims or mlp_ratios"
        )

    def _check_together(self) -> None:
        for branch in range(MAX_BRANCHES):
            own = [self.genes[self._place[field, (branch,)]] for field in TOGETHER if (field, (branch,)) in self._place]
            if (number := math.prod(len(gene.choices) for gene in own)) > MAX_TOGETHER:
                raise ConfigError(
                    f"space: {number:,} combinations of {', '.join(gene.field for gene in own)} in branch {branch}; "
                    f"use at most {MAX_TOGETHER:,}, for example by larger steps"
                )

    def _check(self) -> None:
        """Check that every combination of parts, and of values that all branches share, has a valid network.

        The first `MAX_CHECKED` combinations in a branch are repaired, and the configs of the first `MAX_BUILT` ones are
        validated. What is invalid after these is reported in the same sentence when a search meets it.

        Raises:
            ConfigError: naming the branch, the parts and the values.
        """
        parts = [i for i, gene in enumerate(self.genes) if gene.field in ("attention", "ffn", "shortcut", "stem")]
        shared = [i for i in parts if not self.genes[i].place]
        shared += [i for i, gene in enumerate(self.genes) if gene.field in TOGETHER and not gene.place]
        for branch in range(MAX_BRANCHES):
            varied = shared + [i for i in parts if self.genes[i].place == (branch,)]
            combinations = itertools.product(*(range(len(self.genes[i].choices)) for i in varied))
            for number, combination in enumerate(itertools.islice(combinations, MAX_CHECKED)):
                genome = self._first()
                for index, choice in zip(varied, combination, strict=True):
                    genome[index] = choice
                repaired = self.repaired(genome)
                if number < MAX_BUILT:
                    self.config(repaired)


def _pairs_by_distance(row: int, column: int, rows: int, columns: int) -> Iterator[tuple[int, int, int]]:
    """The cells of a table by growing number of steps from a cell: (steps, row, column)."""
    for steps in range(rows + columns - 1):
        for down in range(max(-row, -steps), min(rows - 1 - row, steps) + 1):
            rest = steps - abs(down)
            for across in dict.fromkeys((-rest, rest)):
                if 0 <= column + across < columns:
                    yield steps, row + down, column + across


def _around(ascending: Sequence[int], number: int) -> Sequence[int]:
    """The number itself if it is there, or else its neighbours."""
    place = bisect_left(ascending, number)
    if place < len(ascending) and ascending[place] == number:
        return (number,)
    return ascending[max(0, place - 1) : place + 1]


def _valid_widths(rule: tuple[Any, ...], widths: tuple[int, ...], head_dim: int, ratio: float) -> Sequence[int]:
    """Indices of the widths that are valid with a head dim, a ratio and the parts of a branch."""
    opens, attention, ffn, shortcut, stem = rule
    judge = HRViTConfig.model_construct(  # type: ignore[call-arg]  # the rule reads these fields alone
        topology="pyramid" if opens else "parallel", attention=(attention,), ffn=(ffn,), shortcut=shortcut,
        stem=stem, head_dims=(head_dim,), mlp_ratios=(ratio,),
    )  # fmt: skip
    accepts = judge.width_accepts(0)
    return [index for index, width in enumerate(widths) if accepts(width)]


def _genes(spec: SearchSpec, largest: HRViTConfig) -> Iterator[Gene]:
    """The genes of a space, for the base with the most branches."""
    for field, dimension in spec.space.items():
        match dimension.per:
            case "network":
                yield Gene(field, (), tuple(dimension.choices))
            case "branch":
                for branch in range(largest.num_branches):
                    yield Gene(field, (branch,), tuple(_of_branch(field, dimension, branch)))
            case "place":
                for stage, blocks in enumerate(largest.depths):
                    for branch in range(len(blocks)):
                        yield Gene(field, (stage, branch), tuple(dimension.choices))


def _of_branch(field: str, dimension: Dimension, branch: int) -> list[Any]:
    own = isinstance(dimension.choices[0], list)
    if own and branch >= len(dimension.choices):
        raise ConfigError(
            f"space.{field}: {len(dimension.choices)} lists for {branch + 1} branches; give one for every branch"
        )
    return dimension.of_branch(branch)


def _exists(gene: Gene, base: HRViTConfig) -> bool:
    """Whether a base has the place of a gene."""
    match gene.place:
        case (branch,):
            return branch < base.num_branches
        case (stage, branch):
            return branch < len(base.depths[stage])
    return True


def _placed(value: Sequence[Any], place: tuple[int, ...], entry: Any) -> tuple[Any, ...]:
    first, *rest = place
    return (*value[:first], _placed(value[first], tuple(rest), entry) if rest else entry, *value[first + 1 :])
