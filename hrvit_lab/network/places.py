"""The module names of a plan's parts in a built network.

``deploy`` and ``pack`` keep these names, so they are also valid for deployed and packed networks.
"""

from collections.abc import Iterator
from typing import NamedTuple

from hrvit_lab.config.plan import Part, Plan

IN_BLOCK = ("attn_norm", "attn", "shortcut", "ffn_norm", "ffn")
"""A block's modules, in the order of ``Part.inside``."""


class Place(NamedTuple):
    """A part of a plan and its module.

    Attributes:
        name: of the module, for ``model.get_submodule(name)``: ``"stages.2.branches.1.0.attn"``.
        stage: a number, ``"stem"`` or ``"head"``.
        branch: None for a part that processes all branches.
        inside: the places of a block's parts.
    """

    name: str
    stage: int | str
    branch: int | None
    part: Part
    inside: tuple["Place", ...] = ()


def places(planned: Plan) -> Iterator[Place]:
    """The places of all parts, in the order of execution.

    >>> from hrvit_lab.config import preset
    >>> from hrvit_lab.config.plan import plan
    >>> [place.name for place in places(plan(preset("hrvit_nano")))][:4]
    ['stem', 'fusions.0', 'stages.0.patch_embeds.0', 'stages.0.branches.0.0']
    """
    yield Place("stem", "stem", 0, planned.stem)
    for s, (fusion, branches) in enumerate(planned.stages):
        if fusion:
            yield Place(f"fusions.{s}", s, None, fusion)
        for i, (b, patch_embed, blocks, norm) in enumerate(branches):
            if patch_embed:
                yield Place(f"stages.{s}.patch_embeds.{i}", s, b, patch_embed)
            for j, block in enumerate(blocks):
                name = f"stages.{s}.branches.{i}.{j}"
                inside = zip(IN_BLOCK, block.inside, strict=False)  # without a feed-forward network the first three
                yield Place(name, s, b, block, tuple(Place(f"{name}.{child}", s, b, part) for child, part in inside))
            if norm:
                yield Place(f"stages.{s}.norms.{i}", s, b, norm)
    if planned.head:
        yield Place("head", "head", None, planned.head)
