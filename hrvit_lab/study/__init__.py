"""Studies: a file in ``studies/`` becomes networks, trials on disk, one tidy table, figures and a report."""
