"""The work of ``hrvit-lab search score``: a table of costs and scores, with a column for each network."""

import argparse
import csv
import sys

from hrvit_lab import cli
from hrvit_lab.config import own_name, read_config
from hrvit_lab.cost.count import count
from hrvit_lab.files import guarded
from hrvit_lab.metrics import METRICS
from hrvit_lab.network.baselines import TIMM, NetworkConfig, TimmConfig
from hrvit_lab.search.predictors import PREDICTORS
from hrvit_lab.search.predictors.choice import BatchChoice
from hrvit_lab.search.predictors.score import fitting, load_batch, score_config
from hrvit_lab.study.spec import DataChoice

BASELINES = ("params", "macs", "activations")


def score(options: argparse.Namespace) -> int:
    """Print the table. Returns the exit code.

    Raises:
        ConfigError: for an unknown network, missing images, or a predictor that does not support a network.
    """
    root = None if options.root is None else str(options.root)
    data = DataChoice(name=options.data, resolution=options.resolution, root=root)
    choice = BatchChoice(data=data, batch_size=options.batch_size, seed=options.seed)
    networks = {name: _config(name) for name in dict.fromkeys(options.models)}
    for config in networks.values():
        config.check_resolution(options.resolution)
    batch, classes = load_batch(choice)
    keys = options.predictors or [key for key in PREDICTORS if all(fitting(key, c) for c in networks.values())]
    rows: dict[str, list[float]] = {}
    for name, config in networks.items():
        counts = count(config, options.resolution)
        found = score_config(config, keys, batch, classes, choice.seed)
        rows[name] = [*(getattr(counts, key) for key in BASELINES), *(found[key] for key in keys)]
    if options.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["network", *BASELINES, *keys])
        writer.writerows([guarded(name), *values] for name, values in rows.items())
        return 0
    size = cli.show_size(options.resolution)
    table = cli.table(f"Scores of untrained networks, {len(batch.images)} images of {options.data} at {size}")
    table.add_column("", overflow="fold")
    for name in rows:
        table.add_column(name, justify="right", overflow="fold")
    labels = (*(METRICS[key].label for key in BASELINES), *(PREDICTORS[key].label for key in keys))
    for index, (label, *values) in enumerate(zip(labels, *rows.values(), strict=True)):
        table.add_row(label, *(cli.si(value, 3) if index < len(BASELINES) else f"{value:.4g}" for value in values))
    cli.console().print(table)
    return 0


def _config(name: str) -> NetworkConfig:
    own = own_name(name)
    return TimmConfig(own) if own.startswith(TIMM) else read_config(own)
