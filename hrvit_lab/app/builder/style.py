"""The page's layout: grids of fields, and costs that stay in sight. Rules apply to containers by their keys."""

GRID = "3.4rem"
"""Width of a number in a grid."""


def rules(stages: int, with_neck: bool) -> str:
    """CSS for the page, as an element.

    Args:
        stages: columns of the grid of depths.
        with_neck: whether the grid of branches has a column more.
    """
    numbers = 5 if with_neck else 4
    branches = f"5rem minmax(8rem, 5fr) minmax(6rem, 3fr) repeat({numbers}, {GRID})"
    depths = f"5rem repeat({stages}, minmax({GRID}, 6rem))"
    return f"""<style>
.st-key-branch_grid, .st-key-depth_grid {{ display: grid; align-items: center; gap: 0.3rem 0.4rem; padding: 3px; }}
.st-key-branch_grid {{ grid-template-columns: {branches}; min-width: {20 + 3.6 * numbers}rem; }}
.st-key-depth_grid {{ grid-template-columns: {depths}; min-width: {5 + 3.6 * stages}rem; }}
.st-key-branch_grid > *, .st-key-depth_grid > * {{ width: auto !important; min-width: 0 !important; }}
.st-key-branch_scroll, .st-key-depth_scroll {{ overflow-x: auto; }}
.st-key-branch_grid > :has(.st-key-fault), .st-key-depth_grid > :has(.st-key-fault) {{ grid-column: 1 / -1; }}
.st-key-branch_grid input, .st-key-depth_grid input {{ padding-left: 0.55rem; padding-right: 0.2rem; }}
.st-key-branch_grid input {{ text-overflow: ellipsis; }}
[data-testid=stSelectboxVirtualDropdown] {{ min-width: min(23rem, 92vw); }}
.st-key-costs {{
  display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); gap: 0.5rem 0.75rem;
}}
.st-key-costs > * {{ width: auto !important; }}
.st-key-costs [data-testid=stMetricValue] {{ font-size: 1.3rem; line-height: 1.35; }}
.st-key-costs [data-testid=stMetricLabel] * {{ white-space: normal; line-height: 1.2; }}
.st-key-costs > * {{ align-self: end; }}
.st-key-stale {{ opacity: 0.4; filter: grayscale(1); }}
[data-testid=stNumberInputClearButton], .st-key-branch_grid [aria-label="Clear value"] {{ display: none; }}
@media (min-width: 1000px) {{
  [data-testid=stVerticalBlock]:has(> [data-testid=stLayoutWrapper] > .st-key-side) {{ height: 100%; }}
  [data-testid=stLayoutWrapper]:has(> .st-key-side) {{
    position: sticky; top: 4rem; max-height: calc(100vh - 5rem); overflow-y: auto; scrollbar-width: thin;
  }}
}}
@media (max-width: 640px) {{
  [data-testid=stColumn]:has(.st-key-side) {{ order: -1; }}
  .st-key-costs {{
    grid-template-columns: repeat(3, 1fr); position: fixed; inset: auto 0 0; z-index: 10; gap: 0.2rem 0.5rem;
    padding: 0.4rem 1rem; background: Canvas; border-top: 1px solid GrayText;
  }}
  .st-key-costs [data-testid=stMetricValue] {{ font-size: 0.95rem; }}
  .st-key-costs [data-testid=stMetricLabel] * {{ font-size: 0.75rem; }}
  .st-key-costs [data-testid=stTooltipIcon] {{ display: none; }}
  [data-testid=stMainBlockContainer] {{ padding-bottom: 14rem; }}
}}
</style>"""
