"""The card of an exported file: one record for programs (JSON), and the same as text (Markdown)."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from hrvit_lab.cli import mib, printable, si
from hrvit_lab.config import PRESETS, SEGMENTERS, HRViTConfig, diff
from hrvit_lab.cost.count import UncountedOperator, count
from hrvit_lab.environment import environment, package_version
from hrvit_lab.export.accuracy import Accuracy
from hrvit_lab.export.formats import FORMATS
from hrvit_lab.export.write import Exported
from hrvit_lab.network.baselines import NetworkConfig
from hrvit_lab.network.named import NamedNetwork

CARD, RECORD, CONFIG = "card.md", "card.json", "config.yaml"
CHUNK_BYTES = 2**20


def record(
    network: NamedNetwork, exported: Exported, latency: Mapping[str, Any] | None, accuracy: Accuracy | None = None
) -> dict[str, Any]:
    """All facts about an exported file, as JSON types.

    Args:
        network: that was exported.
        latency: of the file; None: it was not measured.
        accuracy: of the network and the file; None: it was not measured.
    """
    request = exported.request
    form = FORMATS[request.format]
    model = network.model
    about: dict[str, Any] = environment()
    packages = (*form.packages, *(form.quantizer if request.dtype == "int8" else ()))
    about["versions"] |= {name: version for name in packages if (version := package_version(name))}
    return {
        "model": network.name,
        "weights": network.weights,
        "trained": network.trained,
        "config_id": None if network.config is None else network.config.id,
        **preset_and_changes(network.config),
        "config": {"model": network.name} if network.config is None else network.config.to_dict(),
        "format": request.format,
        "runtime": form.runtime,
        "files": {
            name: {"bytes": (exported.path.parent / name).stat().st_size, "sha256": sha256(exported.path.parent / name)}
            for name in (exported.path.name, *form.beside)
        },
        "dtype": request.dtype,
        "resolution_px": list(request.resolution),
        "batch_size": request.batch_size,
        "free": list(request.free),
        "max_batch": request.max_batch,
        "side_step_px": request.side_step if "size" in request.free else None,
        "max_side_px": request.max_side_px,
        "input_shape": list(request.shape),
        "output_shapes": [list(shape) for shape in exported.output_shapes],
        "mean": list(network.mean),
        "std": list(network.std),
        "class_names": list(network.class_names),
        "costs": costs(model, request.resolution),
        "checks": [
            {
                "images": check.images,
                "shape": list(check.shape),
                "relative_error": check.relative_error if math.isfinite(check.relative_error) else None,
                "tolerance": check.tolerance if math.isfinite(check.tolerance) else None,
                "same_nan": check.same_nan,
                "agrees": check.agrees,
            }
            for check in exported.checks
        ],
        "calibration_images": None if request.calibration is None else len(request.calibration),
        "accuracy": None
        if accuracy is None
        else asdict(accuracy) | {"within": accuracy.within, "sentence": accuracy.sentence},
        "latency": None if latency is None else dict(latency),
        "load": exported.lines,
        "environment": about,
    }


def preset_and_changes(config: NetworkConfig | None) -> dict[str, Any]:
    """The preset by whose name a config is called, and the fields that differ from it; None without a preset."""
    name = config.name.partition(".")[0] if isinstance(config, HRViTConfig) else ""
    base = (PRESETS | SEGMENTERS).get(name)
    if not isinstance(config, HRViTConfig) or base is None:
        return {"preset": None, "changes": None}
    return {
        "preset": name,
        "changes": {field: now for field, (_, now) in diff(base, config).items() if field != "name"},
    }


def costs(model: nn.Module, resolution: tuple[int, int]) -> dict[str, int | None]:
    """Parameters of the network, and its multiply-accumulates for one image; None if an operator's cost is unknown."""
    try:
        counts = count(model, resolution)
    except UncountedOperator:
        return {"params": sum(parameter.numel() for parameter in model.parameters()), "macs": None, "flops": None}
    return {"params": counts.params, "macs": counts.macs, "flops": 2 * counts.macs}


def sha256(path: Path) -> str:
    """Digest of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def as_markdown(about: Mapping[str, Any]) -> str:
    """The card as text, from `record`."""
    return "\n".join(
        [
            f"# {code(about['model'])} as {about['format']}",
            "",
            f"{code(about['weights'])}. Exported by hrvit-lab on {about['environment']['date_utc'][:10]}.",
            "",
            *table(("", ""), facts(about)),
            "",
            "## Load it",
            "",
            "In the folder of this file:",
            "",
            "```python",
            about["load"].rstrip(),
            "```",
            "",
            "## Agreement with the network",
            "",
            "Outputs of the loaded file, compared with those of the plain network in PyTorch, eager and in float32.",
            "",
            *table(("images", "shape", "relative error", "tolerance", "NaN", ""), map(_check_row, about["checks"])),
            "",
            *_accuracy_lines(about),
            "## Latency",
            "",
            *latency_sentences(about["latency"]),
            "",
            "## Versions",
            "",
            *table(("", ""), [*about["environment"]["versions"].items(), ("processor", about["environment"]["cpu"])]),
            "",
        ]
    )


def facts(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the file is and costs, in rows of two cells."""
    files = ", ".join(f"`{name}` ({mib(file['bytes'])})" for name, file in about["files"].items())
    said = "" if about["max_batch"] is None else f"; up to {about['max_batch']:,} images"
    if about["max_side_px"] is not None:
        said += f"; sides are multiples of {about['side_step_px']} pixels, up to {about['max_side_px']:,}"
    macs, params = about["costs"]["macs"], about["costs"]["params"]
    rows = [
        ("file", files),
        ("config", _config(about)),
        ("runtime", about["runtime"]),
        ("images", f"float32, {_times(about['input_shape'])}{said}"),
        ("output", f"float32, {' and '.join(map(_times, about['output_shapes']))}"),
        ("arithmetic", about["dtype"]),
        ("parameters", f"{params:,} ({mib(4 * params)} in float32)"),
        ("MACs of one image", "unknown" if macs is None else si(macs)),
    ]
    if about["trained"]:
        pixels = f"0…1, less mean {_listed(about['mean'])}, divided by {_listed(about['std'])}"
        rows.insert(4, ("pixels", pixels))
    if about["class_names"]:
        rows.append(("classes", code(", ".join(about["class_names"]))))
    return rows


def latency_sentences(latency: Mapping[str, Any] | None) -> list[str]:
    """The latency with its interval, method and conditions."""
    if latency is None:
        return ["The latency was not measured."]
    if latency["latency_ms"] is None:
        return [f"The latency was not measured: {code(latency['reason'])}."]
    value, low, high = (latency["latency_ms"][key] for key in ("value", "low", "high"))
    threads = latency["threads"]
    said = [
        f"Median {value:.4g} ms [{low:.4g}, {high:.4g}] for a batch of {latency['batch_size']}, on "
        f"{latency['device_name']} with {threads} thread{'s' * (threads != 1)}; {latency['rounds']} interleaved "
        "rounds, 95 % interval."
    ]  # fmt: skip
    if ratio := latency["ratio"]:
        control = latency["control"]
        said.append(
            f"{ratio['value']:.3g} × {latency['against']} [{ratio['low']:.3g}, {ratio['high']:.3g}]: "
            f"{latency['verdict']}. A/A control: [{control['low']:.3g}, {control['high']:.3g}]."
        )
    return [*said, *map(printable, latency["disturbed"])]


def table(head: Sequence[str], rows: Any) -> list[str]:
    """Lines of a table in Markdown."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |" for row in rows)]


def code(text: object) -> str:
    """Text that is shown as it is: a name could contain markup."""
    return f"`{printable(text).replace('`', chr(39)).replace(chr(10), ' ')}`"


def _accuracy_lines(about: Mapping[str, Any]) -> list[str]:
    """The section on accuracy; empty for a file without calibration."""
    if about["calibration_images"] is None:
        return []
    measured = about["accuracy"]["sentence"] if about["accuracy"] else "Not measured: the images have no labels."
    return ["## Accuracy", "", f"Calibrated on {about['calibration_images']:,} images. {measured}", ""]


def _config(about: Mapping[str, Any]) -> str:
    """The network's preset with the changed fields, or its file, and its id."""
    if about["preset"] is None:
        name = code(about["config"]["model"]) if "model" in about["config"] else f"`{CONFIG}`"
        return f"{name}, id `{about['config_id']}`"
    changes = "".join(f", {code(f'{field} = {value}')}" for field, value in about["changes"].items())
    return f"{code(about['preset'])}{changes}, id `{about['config_id']}`"


def _check_row(check: Mapping[str, Any]) -> tuple[str, ...]:
    error = check["relative_error"]
    return (
        check["images"], _times(check["shape"]), "not finite" if error is None else f"{error:.2g}",
        "none" if check["tolerance"] is None else f"{check['tolerance']:g}", "same" if check["same_nan"] else "differs",
        "agrees" if check["agrees"] else "differs",
    )  # fmt: skip


def _times(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _listed(values: Sequence[float]) -> str:
    shown = [f"{value:g}" for value in values]
    return shown[0] if len(set(shown)) == 1 else ", ".join(shown)
