"""Studies: run a file in ``studies/`` and produce trials on disk, one tidy table, figures and a report."""
