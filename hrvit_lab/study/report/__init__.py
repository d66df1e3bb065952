"""The report of a study: its figures, and one self-contained HTML file."""

from hrvit_lab.study.report.figures import figures_of
from hrvit_lab.study.report.page import render

__all__ = ["figures_of", "render"]
