"""Peak memory of inference in closed form: which maps are alive at the network's fullest moment."""

from hrvit_lab.config import TABLES, HRViTConfig
from hrvit_lab.config.plan import BranchPlan, Part, Plan, Size, plan
from hrvit_lab.cost.ledger import area, plan_totals
from hrvit_lab.parts.attention import attention_live
from hrvit_lab.parts.ops import dtype_bytes


def peak_memory_bytes(
    config: HRViTConfig, resolution: int | Size = 224, *, batch_size: int = 1, dtype: str = "float32"
) -> int:
    """Weights, running statistics, input and the most elements of maps that live at one moment of a forward pass.

    Of the plain model with fused attention, nothing kept for gradients: the same quantity that
    ``hrvit_lab.latency.memory.measure_peak_memory`` follows operator by operator on the CPU. Every part has a formula
    of its live set (``live`` in the tables of ``hrvit_lab.parts``); what a kernel or an allocator takes beside its
    outputs is not in it.

    Args:
        resolution: input height and width in pixels; one number means square.
        batch_size: images a pass.
        dtype: of weights and input, a key of ``DTYPE_BYTES``.
    Raises:
        ConfigError: if the input is smaller than the coarsest branch's stride.
        ValueError: for an unknown dtype.
    """
    planned = plan(config, resolution)
    image = config.in_chans * area(*planned.stem.sizes)
    maps = batch_size * (image + peak_live_elements(planned, batch_size))
    return plan_totals(planned).weight_bytes(dtype) + dtype_bytes(dtype) * maps


def peak_live_elements(planned: Plan, batch_size: int = 1) -> int:
    """Most elements of maps alive at once for one image of a batch, the input left out.

    Fusions, a stage's branches and the head run one after another. While a stage runs, the maps before it stay, and so
    do those that its fusion made and the results of its branches that are done.
    """
    peak = part_live(planned.stem)
    stem_width, finest = planned.stem.arguments[1], planned.stages[0].branches[0].blocks[0].sizes
    maps = {0: stem_width * area(*finest)}  # by branch, as the stage before left them
    for fusion, branches in planned.stages:
        alive = sum(maps.values())
        if fusion:
            peak = max(peak, alive + part_live(fusion))
            alive += sum(dim * area(size) for dim, size in zip(fusion.arguments[1], fusion.sizes, strict=True))
        for branch in branches:
            if branch.patch_embed:
                peak = max(peak, alive + part_live(branch.patch_embed))
            peak = max(peak, alive + _blocks_live(branch, batch_size))
            maps[branch.number] = _map(branch.blocks[0])
            alive += maps[branch.number]
    return max(peak, sum(maps.values()) + (part_live(planned.head) if planned.head else 0))


def _blocks_live(branch: BranchPlan, batch_size: int) -> int:
    """Most elements alive while a branch's blocks run, beside the map that opens the branch.

    The embedded map stays until the last block is done; without a patch embedding it is the one that came in. A block
    holds its input, which is the embedded map for the first one.
    """
    a_map = _map(branch.blocks[0])
    inputs = a_map * (branch.patch_embed is not None) + a_map * (len(branch.blocks) > 1)
    return inputs + max(part_live(block, batch_size) for block in set(branch.blocks))


def part_live(part: Part, batch_size: int = 1) -> int:
    """Most elements of maps alive at once inside a part, for one image of a batch, its input left out.

    In a block, attention runs on the normalized map, the shortcut next to attention's result, and the feed-forward
    network on another normalized map next to the sum.
    """
    kind, variant, arguments, sizes = part
    match kind:
        case "block":
            a_map = _map(part)
            live = {inner.kind: part_live(inner, batch_size) for inner in part.inside}
            return a_map + max(live["attention"], live["shortcut"], a_map + live.get("ffn", 0))
        case "norm":
            return _map(part)
        case "attention":
            return attention_live(variant, *(*arguments, *sizes[0], batch_size))
        case "fusion" | "head":
            return TABLES[kind][variant].live(*arguments, tuple(map(area, sizes)))
        case _:
            return TABLES[kind][variant].live(*arguments + sizes[0])


def _map(part: Part) -> int:
    """Elements of the map that a block or a norm is given, and of the one that it returns."""
    return part.arguments[0] * area(*part.sizes)
