"""Peak memory of inference in closed form: which maps are alive at the network's fullest moment."""

from hrvit_lab.config import HRViTConfig
from hrvit_lab.cost.ledger import Sizes, totals
from hrvit_lab.parts import FFNS, FUSION, HEAD, PATCH_EMBED, SHORTCUT, STEM
from hrvit_lab.parts.attention import attention_live, variant_at
from hrvit_lab.parts.ops import dtype_bytes


def peak_memory_bytes(
    config: HRViTConfig, resolution: int | tuple[int, int] = 224, *, batch_size: int = 1, dtype: str = "float32"
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
    height, width = config.check_resolution(resolution)
    image = config.in_chans * height * width
    return totals(config, (height, width)).weight_bytes(dtype) + dtype_bytes(dtype) * batch_size * (
        image + peak_live_elements(config, (height, width), batch_size)
    )


def peak_live_elements(config: HRViTConfig, resolution: int | tuple[int, int] = 224, batch_size: int = 1) -> int:
    """Most elements of maps alive at once for one image of a batch, the input left out.

    Fusions, a stage's branches and the head run one after another.

    Raises:
        ConfigError: if the input is smaller than the coarsest branch's stride.
    """
    height, width = config.check_resolution(resolution)
    sizes = config.map_sizes((height, width))
    pixels = tuple(h * w for h, w in sizes)
    peak = STEM[config.stem].live(config.in_chans, config.stem_width, height, width)
    peak = max(peak, (_pyramid_live if config.topology == "pyramid" else _parallel_live)(config, sizes, batch_size))
    head = HEAD[config.head].live(config.widths, config.head_widths, config.head_channels, config.num_classes, pixels)
    return max(peak, _elements(config.widths, pixels) + head)


def _parallel_live(config: HRViTConfig, sizes: Sizes, batch_size: int) -> int:
    """While a stage runs, the maps of the stage before and the fused ones stay, and results of its finer branches."""
    pixels = tuple(h * w for h, w in sizes)
    peak = 0
    dims: tuple[int, ...] = (config.stem_width,)
    for s, depths in enumerate(config.depths):
        n = len(depths)
        fused = dims + config.widths[len(dims) : n]
        before = _elements(dims, pixels)
        last = s == len(config.depths) - 1
        peak = max(peak, before + FUSION[config.fusion].live(dims, fused, config.upsample, pixels[:n], last))
        dims = config.widths[:n]
        alive = before + _elements(fused, pixels)
        embed = PATCH_EMBED[config.patch_embed]
        for b in range(n):
            opening = (fused[b], dims[b], 1, *sizes[b])
            passed = 0 if embed.cost(*opening) else dims[b] * pixels[b]  # the embedded map is the fused one
            blocks = blocks_live(config, s, b, sizes[b], batch_size) - passed
            peak = max(peak, alive + embed.live(*opening), alive + blocks)
            alive += dims[b] * pixels[b]
    return peak


def _pyramid_live(config: HRViTConfig, sizes: Sizes, batch_size: int) -> int:
    """While a scale runs, the maps of all finer ones stay; the first's embedded map is the stem's."""
    pixels = tuple(h * w for h, w in sizes)
    peak = alive = 0
    for b, dim in enumerate(config.widths):
        if b:
            embed = PATCH_EMBED[config.patch_embed].live(config.widths[b - 1], dim, 2, *sizes[b - 1])
            peak = max(peak, alive + embed)
        peak = max(peak, alive + blocks_live(config, 0, b, sizes[b], batch_size))
        alive += dim * pixels[b]
    return peak


def blocks_live(config: HRViTConfig, row: int, branch: int, size: tuple[int, int], batch_size: int) -> int:
    """Most elements alive while a branch's blocks of one stage (``row`` of the depths) run.

    The embedded map stays until the last block is done. A block holds its input; beside it attention runs on the
    normalised map, the shortcut next to attention's result, and the feed-forward network on another normalised map
    next to the sum.
    """
    dim, depth = config.widths[branch], config.depths[row][branch]
    a_map = dim * size[0] * size[1]
    first = config.first_block(row, branch)
    settings = (dim, config.head_dims[branch], config.window_sizes[branch], config.parallel_conv)
    attention = max(
        attention_live(variant, *settings, *size, batch_size)
        for variant in {variant_at(config.attention[branch], first + j) for j in range(depth)}
    )
    shortcut = SHORTCUT[config.shortcut].live(dim, *size)
    ffn = FFNS[config.ffn[branch]].live(dim, config.mlp_ratios[branch], *size)
    block = a_map + max(attention, shortcut, a_map + ffn)
    inputs = a_map if depth == 1 else 2 * a_map
    return inputs + block


def _elements(dims: tuple[int, ...], pixels: tuple[int, ...]) -> int:
    return sum(dim * count for dim, count in zip(dims, pixels, strict=False))
