"""Peak memory of inference in closed form: which maps are alive at the network's fullest moment."""

from hrvit_lab.config import HRViTConfig
from hrvit_lab.cost import ATTENTION, FFNS, FUSION, HEAD, PATCH_EMBED, SHORTCUT, STEM
from hrvit_lab.cost.ledger import totals
from hrvit_lab.cost.ops import dtype_bytes


def peak_memory_bytes(
    config: HRViTConfig, resolution: int | tuple[int, int] = 224, *, batch_size: int = 1, dtype: str = "float32"
) -> int:
    """Weights, running statistics, input and the most elements of maps that live at one moment of a forward pass.

    Of the plain model with fused attention, nothing kept for gradients: the same quantity that
    ``hrvit_lab.measure.measure_peak_memory`` follows operator by operator on the CPU. Every part has a formula of its
    live set (``live`` in the tables of ``hrvit_lab.cost``); what a kernel or an allocator takes beside its outputs is
    not in it.

    Args:
        resolution: input height and width in pixels; one number means square.
        batch_size: images a pass.
        dtype: of weights and input, a key of ``DTYPE_BYTES``.
    Raises:
        ConfigError: if the input is smaller than the coarsest branch's stride.
        ValueError: for an unknown dtype.
    """
    height, width = config.check_resolution(resolution)
    image = config.in_chans * height * width
    return totals(config, (height, width)).weight_bytes(dtype) + dtype_bytes(dtype) * batch_size * (
        image + peak_live_elements(config, (height, width))
    )


def peak_live_elements(config: HRViTConfig, resolution: int | tuple[int, int] = 224) -> int:
    """Most elements of maps alive at once for one image, the input left out.

    Fusions, a stage's branches and the head run one after another. While a stage runs, the maps of the stage before
    and the fused ones stay alive, and so do the results of its finer branches.

    Raises:
        ConfigError: if the input is smaller than the coarsest branch's stride.
    """
    height, width = config.check_resolution(resolution)
    sizes = config.map_sizes((height, width))
    pixels = tuple(h * w for h, w in sizes)
    peak = STEM[config.stem].live(config.in_chans, config.stem_width, height, width)
    dims: tuple[int, ...] = (config.stem_width,)
    for depths in config.depths:
        n = len(depths)
        fused = dims + config.widths[len(dims) : n]
        before = _elements(dims, pixels)
        peak = max(peak, before + FUSION[config.fusion].live(dims, fused, pixels[:n]))
        dims = config.widths[:n]
        alive = before + _elements(fused, pixels)
        for branch, depth in enumerate(depths):
            peak = max(peak, alive + branch_live(config, branch, depth, *sizes[branch]))
            alive += dims[branch] * pixels[branch]
    head = HEAD[config.head].live(config.head_widths, config.head_features, pixels)
    return max(peak, _elements(dims, pixels) + head)


def branch_live(config: HRViTConfig, branch: int, depth: int, height: int, width: int) -> int:
    """Most elements alive in one branch of a stage beside its input: patch embedding, then ``depth`` blocks.

    The embedded map stays until the last block is done. A block holds its input; beside it attention runs on the
    normalised map, the shortcut next to attention's result, and the feed-forward network on another normalised map
    next to attention's result and the sum.
    """
    dim = config.widths[branch]
    a_map = dim * height * width
    attention = ATTENTION[config.attention[branch]].live(dim, config.window_sizes[branch], height, width)
    shortcut = SHORTCUT[config.shortcut].live(dim, height, width)
    ffn = FFNS[config.ffn[branch]].live(dim, config.mlp_ratios[branch], height, width)
    block = max(a_map + attention, a_map + shortcut, 3 * a_map, 3 * a_map + ffn)
    inputs = a_map if depth == 1 else 2 * a_map
    return max(PATCH_EMBED[config.patch_embed].live(dim, height, width), inputs + block)


def _elements(dims: tuple[int, ...], pixels: tuple[int, ...]) -> int:
    return sum(dim * count for dim, count in zip(dims, pixels, strict=False))
