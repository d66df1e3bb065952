"""The structure of a network: the parts of a config, their arguments and their positions.

Parallel branches (arXiv 2111.01236): the stem's map is the first branch, and every stage begins with a fusion that
computes the inputs of its branches from the maps of the previous stage::

    stem ─▶ fusion ─▶ branch 0 ─▶ fusion ─▶ branch 0 ─▶ … ─▶ head
                                        └▶ branch 1 ─▶ … ─▶

A pyramid (arXiv 2105.15203): each stage is one branch, which reads the map of the previous branch::

    stem ─▶ branch 0 ─▶ branch 1 ─▶ branch 2 ─▶ … ─▶ head

The head reads the last map of every branch. A branch of a stage is a patch embedding, blocks and a LayerNorm. A block
is a norm, attention with a parallel shortcut, another norm and a feed-forward network. A part that does nothing (no
head, no feed-forward network, a map that needs no patch embedding) is not in the plan.
"""

from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any, NamedTuple

from hrvit_lab.config.schema import HRViTConfig
from hrvit_lab.parts import FFNS, HEAD, PATCH_EMBED
from hrvit_lab.parts.attention import variant_at

Size = tuple[int, int]
"""Height and width of a map, in tokens; of the image, in pixels."""
Sizes = tuple[Size, ...]


class Part(NamedTuple):
    """A part of a network, as data. Equal parts are built from the same arguments and have the same cost and function.

    Attributes:
        kind: ``"stem"``, ``"fusion"``, ``"patch_embed"``, ``"block"``, ``"norm"``, ``"attention"``, ``"shortcut"``,
            ``"ffn"`` or ``"head"``.
        variant: its name in the table of its kind; empty for blocks and norms, of which there is one.
        arguments: its arguments, in the order in which modules and cost functions take them. Dropout, epsilon and
            checkpointing are not included: they change neither shapes nor costs.
        sizes: of its input map; for a fusion, of all output maps; for a head, of all input maps. Empty in a plan
            without a resolution.
    """

    kind: str
    variant: str
    arguments: tuple[Any, ...]
    sizes: Sizes

    @property
    def inside(self) -> tuple["Part", ...]:
        """The parts of a block in the order of execution; empty for other kinds."""
        if self.kind != "block":
            return ()
        dim, attention, attention_arguments, shortcut, ffn, ffn_arguments = self.arguments
        norm = Part("norm", "", (dim,), self.sizes)
        attended = Part("attention", attention, attention_arguments, self.sizes)
        half = norm, attended, Part("shortcut", shortcut, (dim,), self.sizes)
        return (*half, norm, Part("ffn", ffn, ffn_arguments, self.sizes)) if FFNS[ffn].present else half


class BranchPlan(NamedTuple):
    """One branch in one stage.

    Attributes:
        number: of the branch, 0 for the finest.
        blocks: all blocks in order; equal blocks are the same object.
    """

    number: int
    patch_embed: Part | None
    blocks: tuple[Part, ...]
    norm: Part | None


class StagePlan(NamedTuple):
    """One stage: the fusion that computes its inputs, and its branches, which are independent of each other."""

    fusion: Part | None
    branches: tuple[BranchPlan, ...]


class Step(NamedTuple):
    """A part and its position.

    Attributes:
        stage: a number, ``"stem"`` or ``"head"``.
        branch: None for a part that processes all branches.
        repeats: number of equal blocks in this branch and stage.
    """

    stage: int | str
    branch: int | None
    part: Part
    repeats: int = 1


class Plan(NamedTuple):
    """The parts of a network, nested by stage and branch."""

    stem: Part
    stages: tuple[StagePlan, ...]
    head: Part | None

    def steps(self) -> Iterator[Step]:
        """All parts in the order of execution. Equal blocks of a branch and stage are one step."""
        yield Step("stem", 0, self.stem)
        for s, (fusion, branches) in enumerate(self.stages):
            if fusion:
                yield Step(s, None, fusion)
            for b, patch_embed, blocks, norm in branches:
                if patch_embed:
                    yield Step(s, b, patch_embed)
                while blocks:
                    block = blocks[0]
                    repeats = blocks.count(block)
                    yield Step(s, b, block, repeats)
                    blocks = () if repeats == len(blocks) else tuple(other for other in blocks if other != block)
                if norm:
                    yield Step(s, b, norm)
        if self.head:
            yield Step("head", None, self.head)


def plan(config: HRViTConfig, resolution: int | Size | None = None) -> Plan:
    """The parts of a config's network.

    Args:
        resolution: pixels of the input, a side or (height, width); without it the parts have no sizes.
    Raises:
        ConfigError: if the input is smaller than the coarsest branch's stride.

    >>> from hrvit_lab.config import preset
    >>> nano = plan(preset("hrvit_nano"), 64)
    >>> nano.stages[1].branches[1].patch_embed
    Part(kind='patch_embed', variant='efficient', arguments=(16, 16, 1), sizes=((8, 8),))
    >>> [part.kind for part in nano.stages[1].branches[1].blocks[0].inside]
    ['norm', 'attention', 'shortcut', 'norm', 'ffn']
    """
    image = () if resolution is None else (config.check_resolution(resolution),)
    sizes = config.map_sizes(image[0]) if image else ()
    pyramid = config.topology == "pyramid"
    stages = (_pyramid if pyramid else _parallel)(config, sizes)
    head = (config.widths, config.head_widths, config.head_channels, config.num_classes, pyramid)
    return Plan(
        Part("stem", config.stem, (config.in_chans, config.stem_width), image),
        tuple(stages),
        Part("head", config.head, head, sizes) if HEAD[config.head].present else None,
    )


def _parallel(config: HRViTConfig, sizes: Sizes) -> Iterator[StagePlan]:
    dims: tuple[int, ...] = (config.stem_width,)
    coming = [_blocks(config, b, sizes[b : b + 1]) for b in range(config.num_branches)]
    for s, depths in enumerate(config.depths):
        widths = config.widths[: len(depths)]
        fused = dims + widths[len(dims) :]  # widths of the previous stage; a new branch has its own
        last = s == len(config.depths) - 1
        fusion = Part("fusion", config.fusion, (dims, fused, config.upsample, last), sizes[: len(depths)])
        branches = (
            _branch(config, b, _patch_embed(config, fused[b], b, 1, sizes[b : b + 1]), coming[b], depth)
            for b, depth in enumerate(depths)
        )
        yield StagePlan(fusion, tuple(branches))
        dims = widths


def _pyramid(config: HRViTConfig, sizes: Sizes) -> Iterator[StagePlan]:
    for b, depth in enumerate(config.depths[0]):
        patch_embed = _patch_embed(config, config.widths[b - 1], b, 2, sizes[b - 1 : b]) if b else None
        yield StagePlan(None, (_branch(config, b, patch_embed, _blocks(config, b, sizes[b : b + 1]), depth),))


def _branch(
    config: HRViTConfig, branch: int, patch_embed: Part | None, coming: Iterator[Part], depth: int
) -> BranchPlan:
    """A branch of a stage, with the next ``depth`` blocks."""
    blocks = tuple(islice(coming, depth))
    norm = Part("norm", "", (config.widths[branch],), blocks[0].sizes) if config.branch_norm else None
    return BranchPlan(branch, patch_embed, blocks, norm)


def _patch_embed(config: HRViTConfig, c_in: int, branch: int, stride: int, sizes: Sizes) -> Part | None:
    dim = config.widths[branch]
    if PATCH_EMBED[config.patch_embed].only_where_needed and c_in == dim and stride == 1:
        return None
    return Part("patch_embed", config.patch_embed, (c_in, dim, stride), sizes)


def _blocks(config: HRViTConfig, branch: int, sizes: Sizes) -> Iterator[Part]:
    """An infinite iterator over a branch's blocks along all stages: all equal, or two that alternate."""
    dim, ffn = config.widths[branch], config.ffn[branch]
    heads = dim, config.head_dims[branch], config.window_sizes[branch]
    augmented = config.parallel_conv, config.attn_activation, config.attn_batch_norm
    ffn_arguments = (dim, config.mlp_ratios[branch]) if FFNS[ffn].present else ()
    return cycle(
        Part("block", "", (dim, attention, heads + augmented, config.shortcut, ffn, ffn_arguments), sizes)
        for attention in dict.fromkeys(variant_at(config.attention[branch], block) for block in (0, 1))
    )
