"""A drawing of the network as SVG text: branches × stages, coloured by their share of a cost."""

from collections import Counter
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from hrvit_lab.charts import COLORS
from hrvit_lab.config import FINEST_STRIDE, HRViTConfig
from hrvit_lab.config.plan import Plan, plan
from hrvit_lab.cost.count import MIB, Counts, count
from hrvit_lab.metrics import METRICS, format_value
from hrvit_lab.plots.text import shorten

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {
    "macs": ("macs", 1),
    "params": ("params", 1),
    "activations": ("activations", 1),
    "moved_mib": ("moved_bytes", MIB),
}
"""Columns of `Counts.frame` by keys of `METRICS`, with the divisor that gives the metric's unit."""

COSTS = tuple(COLUMNS)
"""Costs that the colours can show: keys of `METRICS`."""

MARGIN, TITLE, LABELS, FOOT = 20, 52, 168, 64
ROW, COLUMN, FUSION, GAP = 72, 68, 12, 16
MIN_WIDTH, MIN_HEIGHT, MAX_HEIGHT = 28, 22, 54


class Palette(NamedTuple):
    """Colours on a light or a dark page.

    Attributes:
        low, high: of the smallest and the largest share, as red, green and blue.
        on_high: of text on shares whose position on the scale is at least ``turns``; below it is ``ink``.
    """

    paper: str
    ink: str
    muted: str
    low: tuple[int, int, int]
    high: tuple[int, int, int]
    on_high: str
    turns: float


LIGHT = Palette(COLORS["paper"], COLORS["ink"], COLORS["muted"], (226, 238, 247), (8, 69, 128), COLORS["paper"], 0.45)
DARK = Palette("#171b21", "#e8ebf0", "#9aa4b2", (33, 44, 58), (110, 190, 240), "#0e1116", 0.55)

FONT = 'font-family="Helvetica, Arial, sans-serif"'


class Box(NamedTuple):
    """A rectangle: left, top, width and height in pixels."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """Its vertical centre."""
        return self.y + self.height / 2


def diagram(
    config: HRViTConfig,
    resolution: int | tuple[int, int] = 224,
    cost: str = "macs",
    dark: bool = False,
    values: "pd.DataFrame | None" = None,
) -> str:
    """The network as SVG.

    A row for each branch, a column for each stage. The width of a box grows with its number of blocks, its height with
    the square root of its channels; narrow boxes before a stage are fusions, and lines are the paths between maps. The
    colour is the share of the cost, and every shape has a text with its numbers.

    Args:
        resolution: pixels of the input, a side or (height, width).
        cost: one of `COSTS`; another key of `METRICS` with ``values``.
        dark: for a dark page.
        values: the cost by stage, branch and part, as from `costs_of`; None: counted.
    Raises:
        ConfigError: if the input is smaller than the stride of the coarsest branch.
        ValueError: for another cost.
    """
    planned = plan(config, resolution)
    if values is None:
        if cost not in COSTS:
            raise ValueError(f"cost = {cost!r} is not drawn; use one of {', '.join(COSTS)}")
        values = costs_of(count(config, resolution), cost)
    return _Drawing(config, planned, shares(values), cost, DARK if dark else LIGHT).svg()


Place = tuple[int | str, int | None]
"""Stage and branch; the branch is None for a fusion and for the head."""


def shares(values: "pd.DataFrame") -> dict[Place, tuple[float, float]]:
    """The cost of every shape of the drawing, and its share of the total. The shares sum to 1.

    A fusion's costs are not part of its branches' boxes.
    """
    sums: Counter[Place] = Counter()
    for row in values.to_dict("records"):
        whole = row["part"] == "fusion" or row["stage"] == "head"
        sums[row["stage"], None if whole else int(row["branch"])] += row["value"]
    total = sum(sums.values()) or 1
    return {place: (value, value / total) for place, value in sums.items()}


def costs_of(counts: Counts, cost: str) -> "pd.DataFrame":
    """Stage, branch and part of every operator, and its cost in the metric's unit as the column "value"."""
    column, divisor = COLUMNS[cost]
    frame = counts.frame()
    return frame[["stage", "branch", "part"]].assign(value=frame[column] / divisor if divisor > 1 else frame[column])


class _Drawing:
    """The shapes of one drawing and their positions."""

    def __init__(
        self, config: HRViTConfig, planned: Plan, found: dict[Place, tuple[float, float]], cost: str, palette: Palette
    ) -> None:
        self.palette = palette
        self.config, self.plan, self.shares, self.cost = config, planned, found, cost
        self.most = max(share for _, share in found.values())
        self.stages = len(planned.stages)
        self.depth = max(len(branch.blocks) for stage in planned.stages for branch in stage.branches)
        self.width = 2 * MARGIN + LABELS + (self.stages + 1) * (COLUMN + FUSION + GAP) + COLUMN
        self.height = TITLE + config.num_branches * ROW + FOOT
        self.boxes = {
            (s, branch.number): self.box(s, branch.number, len(branch.blocks))
            for s, stage in enumerate(planned.stages)
            for branch in stage.branches
        }

    def svg(self) -> str:
        """The whole SVG document."""
        size = f'viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}"'
        label = f"{self.name}: {self.stages} stages of up to {self.config.num_branches} branches"
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(label)}" {FONT}>',
                f'<rect width="{self.width}" height="{self.height}" rx="10" fill="{self.palette.paper}"/>',
                *self.paths(),
                *self.shapes(),
                *self.texts(),
                *self.legend(),
                "</svg>\n",
            ]
        )

    @property
    def name(self) -> str:
        return shorten(self.config.name, 48) or self.config.id

    # -- places ---------------------------------------------------------------------------------------------

    def left(self, column: int) -> float:
        """The left end of a column: 0 is the stem, then the stages, then the head."""
        return MARGIN + LABELS + column * (COLUMN + FUSION + GAP)

    def row(self, branch: int) -> float:
        """The centre of a branch's row."""
        return TITLE + (branch + 0.5) * ROW

    def box(self, stage: int, branch: int, blocks: int) -> Box:
        width = MIN_WIDTH + (COLUMN - MIN_WIDTH) * blocks / self.depth
        height = self.tall(self.config.widths[branch])
        return Box(self.left(stage + 1) + FUSION + 4, self.row(branch) - height / 2, width, height)

    def tall(self, channels: int) -> float:
        most = max(*self.config.widths, self.config.stem_width)
        return max(MIN_HEIGHT, MAX_HEIGHT * (channels / most) ** 0.5)

    def fusion(self, stage: int) -> Box:
        branches = len(self.plan.stages[stage].branches)
        return Box(self.left(stage + 1), self.row(0) - ROW / 2 + 8, FUSION - 4, branches * ROW - 16)

    @property
    def stem(self) -> Box:
        height = self.tall(self.config.stem_width)
        return Box(self.left(0), self.row(0) - height / 2, COLUMN * 0.7, height)

    @property
    def head(self) -> Box:
        branches = len(self.ends())
        top = self.row(min(self.ends())) - ROW / 2 + 8
        return Box(self.left(self.stages + 1) + FUSION, top, COLUMN * 0.7, branches * ROW - 16)

    def ends(self) -> dict[int, Box]:
        """The last box of every branch."""
        return {branch: self.boxes[place] for place in sorted(self.boxes) for branch in [place[1]]}

    # -- marks ----------------------------------------------------------------------------------------------

    def paths(self) -> list[str]:
        """Lines between maps: into the fusion of a stage, and from it into the branches; to the head."""
        found = []
        for s, stage in enumerate(self.plan.stages):
            before = [self.stem] if s == 0 else [box for place, box in self.boxes.items() if place[0] == s - 1]
            if stage.fusion is None:
                found += [self.curve(before[-1], self.boxes[s, branch.number]) for branch in stage.branches]
                continue
            fusion = self.fusion(s)
            found += [self.line(box.x + box.width, box.middle, fusion.x) for box in before]
            for branch in stage.branches:
                box = self.boxes[s, branch.number]
                found.append(self.line(fusion.x + fusion.width, box.middle, box.x))
        if self.plan.head is not None:
            found += [self.line(box.x + box.width, box.middle, self.head.x) for box in self.ends().values()]
        return found

    def line(self, start: float, y: float, end: float) -> str:
        """A horizontal path."""
        return (
            f'<path d="M{start:.1f} {y:.1f} H{end:.1f}" stroke="{self.palette.muted}" stroke-width="1.3" fill="none"/>'
        )

    def curve(self, source: Box, target: Box) -> str:
        """A path from the right side of one box to the left side of another."""
        start, end = (source.x + source.width, source.middle), (target.x, target.middle)
        half = (start[0] + end[0]) / 2
        turn = f"C{half:.1f} {start[1]:.1f} {half:.1f} {end[1]:.1f} {end[0]:.1f} {end[1]:.1f}"
        points = f"M{start[0]:.1f} {start[1]:.1f} {turn}"
        return f'<path d="{points}" stroke="{self.palette.muted}" stroke-width="1.3" fill="none"/>'

    def shapes(self) -> list[str]:
        config = self.config
        found = [self.shape(self.stem, ("stem", 0), "stem", f"stem: {config.stem_width} channels")]
        for s, stage in enumerate(self.plan.stages):
            if stage.fusion is not None:
                found.append(self.shape(self.fusion(s), (s, None), "", f"fusion before stage {s}"))
            for branch in stage.branches:
                blocks = len(branch.blocks)
                number = f"{blocks} block{'s' * (blocks > 1)}"
                about = f"stage {s}, branch {branch.number}: {number}, {config.widths[branch.number]} channels"
                found.append(self.shape(self.boxes[s, branch.number], (s, branch.number), f"×{blocks}", about))
        if self.plan.head is not None:
            found.append(self.shape(self.head, ("head", None), "head", f"head: {config.head}"))
        return found

    def shape(self, box: Box, place: Place, text: str, about: str) -> str:
        """A rectangle in the colour of its share, with its numbers as a tooltip."""
        value, share = self.shares.get(place, (0.0, 0.0))
        at = share / self.most if self.most else 0.0
        metric = METRICS[self.cost]
        title = f"{about}; {format_value(metric, value)} {metric.label}, {share:.1%} of the network"
        middle = f'x="{box.x + box.width / 2:.1f}" y="{box.middle + 4:.1f}"'
        ink = self.palette.on_high if at >= self.palette.turns else self.palette.ink
        words = f'<text {middle} font-size="14" text-anchor="middle" fill="{ink}">{escape(text)}</text>' if text else ""
        place_and_size = f'x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"'
        outline = f'stroke="{self.palette.muted}" stroke-width="0.6"'
        fill = color(at, self.palette)
        rectangle = f'<rect {place_and_size} rx="4" fill="{fill}" {outline}/>'
        return f"<g><title>{escape(title)}</title>{rectangle}{words}</g>"

    def texts(self) -> list[str]:
        config = self.config
        found = [
            f'<text x="{MARGIN}" y="30" font-size="18" font-weight="bold" fill="{self.palette.ink}">'
            f"{escape(self.name)}</text>"
        ]
        for b, width in enumerate(config.widths):
            stride = FINEST_STRIDE * 2**b
            for text, y, size, ink in (
                (f"branch {b}", -3, 15, "ink"),
                (f"stride {stride}, {width} channels", 15, 13.5, "muted"),
            ):
                where = f'x="{MARGIN}" y="{self.row(b) + y:.1f}" font-size="{size}"'
                found.append(f'<text {where} fill="{getattr(self.palette, ink)}">{text}</text>')
        y = TITLE + config.num_branches * ROW + 18
        for s in range(self.stages):
            x = self.left(s + 1) + FUSION + 4
            found.append(f'<text x="{x:.1f}" y="{y}" font-size="14" fill="{self.palette.muted}">stage {s}</text>')
        return found

    def legend(self) -> list[str]:
        """The colour scale, from no share to the largest."""
        y, steps, step = self.height - 22, 24, 5
        left = self.width - MARGIN - steps * step - 50
        found = []
        for i in range(steps):
            where = f'x="{left + i * step}" y="{y - 9}" width="{step + 0.5}" height="10"'
            found.append(f'<rect {where} fill="{color(i / (steps - 1), self.palette)}"/>')
        for x, anchor, text in (
            (left - 6, "end", f"share of {METRICS[self.cost].label}: 0 %"),
            (left + steps * step + 6, "start", f"{self.most:.0%}".replace("%", " %")),
        ):
            where = f'x="{x}" y="{y}" font-size="14" text-anchor="{anchor}"'
            found.append(f'<text {where} fill="{self.palette.muted}">{text}</text>')
        return found


def color(at: float, palette: Palette = LIGHT) -> str:
    """The colour at a position from 0 to 1 on the scale.

    >>> color(0), color(1)
    ('#e2eef7', '#084580')
    """
    return "#" + "".join(
        f"{round(low + (high - low) * at):02x}" for low, high in zip(palette.low, palette.high, strict=True)
    )
