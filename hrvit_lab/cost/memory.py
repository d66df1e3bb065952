"""Peak memory of inference in closed form, from the feature maps that are alive at the same time."""

from hrvit_lab.config import TABLES, HRViTConfig
from hrvit_lab.config.plan import BranchPlan, Part, Plan, Size, plan
from hrvit_lab.cost.ledger import area, plan_totals
from hrvit_lab.parts.attention import attention_live
from hrvit_lab.parts.ops import dtype_bytes


def peak_memory_bytes(
    config: HRViTConfig, resolution: int | Size = 224, *, batch_size: int = 1, dtype: str = "float32"
) -> int:
    """Peak memory of a forward pass in bytes: weights, running statistics, input and live feature maps.

    This holds for the model before ``deploy``, with fused attention and without gradients.
    ``hrvit_lab.latency.memory.measure_peak_memory`` measures the same quantity on the CPU, operator by operator. Every
    part has a formula for the size of its live maps (``live`` in the tables of ``hrvit_lab.parts``). Workspace of
    kernels and overhead of the allocator are not included.

    Args:
        resolution: input height and width in pixels; one number means square.
        batch_size: images per forward pass.
        dtype: number format of weights and input, a key of ``DTYPE_BYTES``.
    Raises:
        ConfigError: if the input is smaller than the coarsest branch's stride.
        ValueError: for an unknown dtype.
    """
    planned = plan(config, resolution)
    image = config.in_chans * area(*planned.stem.sizes)
    maps = batch_size * (image + peak_live_elements(planned, batch_size))
    return plan_totals(planned).weight_bytes(dtype) + dtype_bytes(dtype) * maps


def peak_live_elements(planned: Plan, batch_size: int = 1) -> int:
    """Maximum number of elements in live maps, for one image of a batch, without the input.

    Fusions, the branches of a stage and the head run one after another. While a stage runs, the maps of the stage
    before, the outputs of its fusion and the outputs of its finished branches stay alive.
    """
    peak = part_live(planned.stem)
    stem_width, finest = planned.stem.arguments[1], planned.stages[0].branches[0].blocks[0].sizes
    maps = {0: stem_width * area(*finest)}  # by branch: the outputs of the stage before
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
    """Maximum number of live elements while the blocks of a branch run, without the input map of the branch.

    The embedded map stays alive until the last block has run; without a patch embedding it is the input map. A block
    keeps its input alive; for the first block this is the embedded map.
    """
    a_map = _map(branch.blocks[0])
    inputs = a_map * (branch.patch_embed is not None) + a_map * (len(branch.blocks) > 1)
    return inputs + max(part_live(block, batch_size) for block in set(branch.blocks))


def part_live(part: Part, batch_size: int = 1) -> int:
    """Maximum number of elements in live maps inside a part, for one image of a batch, without its input.

    In a block, the normalized map is alive during attention, the output of attention during the shortcut, and the sum
    and its normalized map during the feed-forward network.
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
    """Elements of the input map of a block or a norm; its output map has as many."""
    return part.arguments[0] * area(*part.sizes)
