"""Imported last by the server that tests fork: what is loaded then stays, and forks need not search it for garbage."""

import gc

gc.collect()
gc.freeze()
