"""The report of a study: one HTML file that needs nothing else, made from what the study left in its folder."""

from hrvit_lab.study.report.page import render, write_report

__all__ = ["render", "write_report"]
