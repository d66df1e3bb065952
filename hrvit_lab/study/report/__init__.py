"""The report of a study: its figures, and one HTML file with them that needs nothing else."""

from hrvit_lab.study.report.figures import figures_of
from hrvit_lab.study.report.page import render

__all__ = ["figures_of", "render"]
