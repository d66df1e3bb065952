"""The work of ``hrvit-lab search quality``: score the networks of a finished study, and compare with their accuracy."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from hrvit_lab import cli
from hrvit_lab.config import ConfigError
from hrvit_lab.cost.count import count
from hrvit_lab.files import write_csv
from hrvit_lab.metrics import METRICS
from hrvit_lab.network.baselines import NetworkConfig, network_from_dict
from hrvit_lab.search.predictors import PREDICTORS
from hrvit_lab.search.predictors.choice import BatchChoice
from hrvit_lab.search.predictors.curves import extrapolate
from hrvit_lab.search.predictors.kept import KeptScores
from hrvit_lab.search.predictors.score import fitting, load_batch, score_config
from hrvit_lab.search.quality import (
    AZ_NAS,
    CONTROLS,
    CURVES,
    SUPERNET,
    az_nas,
    quality,
    supernet_verdict,
    tau_matrix,
    verdict,
)
from hrvit_lab.search.supernet.scores import FOLDER, read_rows
from hrvit_lab.study.results import Results
from hrvit_lab.study.run import load_results
from hrvit_lab.study.spec import DataChoice
from hrvit_lab.train.datasets import IN_MEMORY

LABELS: Mapping[str, str] = {
    **{key: METRICS[key].label for key in ("params", "macs", "activations")},
    **{key: predictor.label for key, predictor in PREDICTORS.items()},
    "az_nas": "AZ-NAS",
    "early": "accuracy after half of the epochs",
    "extrapolated": "extrapolated learning curve",
    SUPERNET: "accuracy inherited from the supernet",
}


def show_quality(options: argparse.Namespace) -> int:
    """Print and write the table. Returns the exit code.

    Raises:
        ConfigError: if there are no results of trainings, or too few.
    """
    console = cli.console()
    results = load_results(options.study, out=options.out)
    score = results.score
    if score not in results.table:
        raise ConfigError(f"{results.name} has no trained networks; run it with --metrics params,macs,top1")
    into: Path = options.into or results.folder / "predictors"
    into.mkdir(parents=True, exist_ok=True)
    table = scored(results, score, BatchChoice(data=_images(results), batch_size=options.batch_size), into, console)
    better = {key: "higher" for key in LABELS if key in table} | {
        key: predictor.better for key, predictor in PREDICTORS.items() if key in table
    }
    found = quality(table, score, better)
    write_csv(into / "scores.csv", [list(table), *table.itertuples(index=False)])
    write_csv(into / "quality.csv", [list(found), *found.itertuples(index=False)])
    networks = len(table.dropna(subset=[score, *better]))
    _print(found, results, networks, console)
    if (agreement := between_seeds(results, score)) is not None:
        console.print(
            f"Rankings by two seeds agree with τ {agreement:.2f}. The rest is noise of trainings, which lowers the τ "
            "of every predictor.",
            soft_wrap=True,
        )
    untrained = found[~found["predictor"].isin((*CURVES, SUPERNET))]
    sentences = verdict(untrained, networks, LABELS)
    if SUPERNET in table:
        sentences.append(supernet_verdict(found, LABELS))
    for sentence in sentences:
        console.print(sentence, soft_wrap=True)
    console.print(f"{'quality':<12} {into}: quality.csv, scores.csv", soft_wrap=True)
    return 0


def scored(results: Results, score: str, choice: BatchChoice, into: Path, console: Console) -> pd.DataFrame:
    """Variants with accuracy, costs, scores of all predictors that fit them, and predictions from learning curves.

    If a supernet has scored all of them, also with the accuracy that they inherit.
    """
    networks = _networks(results)
    keys = [key for key in PREDICTORS if all(fitting(key, config) for config in networks.values())]
    kept, rows = KeptScores(into, choice), []
    accuracy = dict(zip(results.table["variant"], results.table[score], strict=True))
    batch, classes = load_batch(choice)
    for number, (name, config) in enumerate(networks.items(), 1):
        missing = [key for key in keys if key not in kept.find(config.id)]
        if missing:
            console.print(f"scoring {name}, {number} of {len(networks)}", soft_wrap=True)
            kept.add(config.id, score_config(config, missing, batch, classes, choice.seed))
        counts = count(config, choice.data.resolution)
        costs = {key: float(getattr(counts, key)) for key in (*CONTROLS, "activations")}
        found = {key: kept.find(config.id)[key] for key in keys}
        found |= _from_curves(results, name, score)
        rows.append({"variant": name, score: accuracy.get(name), **costs, **found})
    table = pd.DataFrame(rows)
    inherited = read_rows(results.folder / FOLDER)
    missing_rows = [name for name, config in networks.items() if config.id not in inherited]
    if not missing_rows:
        table[SUPERNET] = [inherited[config.id].top1 for config in networks.values()]
    elif inherited:
        console.print(
            f"The supernet has no score of {missing_rows[0]}, so it is left out; run it again.", soft_wrap=True
        )
    if set(AZ_NAS) <= set(table):
        table["az_nas"] = az_nas(table)
    return table


def between_seeds(results: Results, score: str) -> float | None:
    """The mean τ between the rankings of the networks by two seeds: how reproducible a ranking is."""
    column = f"val_{score}"
    if column not in results.curves or results.curves.empty:
        return None
    last = results.curves.sort_values("epoch").groupby(["variant", "seed"])[column].last().unstack().dropna()
    if last.shape[1] < 2 or len(last) < 2:
        return None
    taus = tau_matrix(last.to_numpy(dtype=float))
    pairs = [taus[i, j] for i in range(len(taus)) for j in range(i)]
    return float(sum(pairs) / len(pairs))


def _from_curves(results: Results, name: str, score: str) -> dict[str, float]:
    """Accuracy after half of the epochs, and the extrapolation from there to the last epoch; means over seeds."""
    column = f"val_{score}"
    if column not in results.curves:
        return {}
    early, extrapolated = [], []
    own = results.curves[results.curves["variant"] == name]
    for _, curve in own.sort_values("epoch").groupby("seed"):
        values = [float(value) for value in curve[column]]
        half = values[: max(1, len(values) // 2)]
        early.append(half[-1])
        extrapolated.append(extrapolate(half, len(values)))
    if not early:
        return {}
    return {"early": sum(early) / len(early), "extrapolated": sum(extrapolated) / len(extrapolated)}


def _networks(results: Results) -> dict[str, NetworkConfig]:
    networks = {}
    for name in results.table["variant"]:
        fields: Any = results.configs.get(name)
        if isinstance(fields, Mapping):
            networks[str(name)] = network_from_dict(fields)
    if not networks:
        raise ConfigError(f"{results.folder}/configs.json has no networks; run the study again")
    return networks


def _images(results: Results) -> DataChoice:
    spec = results.spec
    if spec.dataset not in IN_MEMORY:
        raise ConfigError(
            f"the study is trained on {spec.dataset!r}, from which no batch can be taken; use a study on "
            f"{' or '.join(IN_MEMORY)}"
        )
    return DataChoice(name=spec.dataset, resolution=spec.train_resolution, root=spec.data_root)


def _print(found: pd.DataFrame, results: Results, networks: int, console: Console) -> None:
    table = cli.table(f"Predictors of {results.score} on {results.dataset}, {networks} networks, 95 % intervals")
    table.add_column("predictor", overflow="fold")
    for head in ("τ", "ρ", "partial τ", "gain in τ"):
        table.add_column(head, justify="right", overflow="fold")
    for row in found.to_dict("records"):
        cells = [
            "–" if pd.isna(row[field]) else f"{row[field]:.2f} [{row[f'{field}_low']:.2f}, {row[f'{field}_high']:.2f}]"
            for field in ("tau", "rho", "partial_tau", "gain")
        ]
        table.add_row(LABELS.get(row["predictor"], row["predictor"]), *cells)
    console.print(table)
