"""``hrvit-lab evaluate``: score a checkpoint on a data set."""
