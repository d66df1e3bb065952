"""Command line for data sets: which there are, and whether their files can be used."""
