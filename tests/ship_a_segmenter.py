"""Run with the folder of shipped networks as its argument: a segmenter that differs from its preset ships in it.

timm reads the names of trained networks when it is imported, so a test needs a process of its own. It prints JSON.
"""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

NAME = "hrvit_nano.composites"
CHANGES = {
    "head": "segformer", "segformer_width": 64, "depths": [[1], [1, 1], [1, 1, 1]], "widths": [8, 16, 32],
    "window_sizes": [1, 2, 4], "head_widths": [4, 8, 16], "head_dims": 8, "mlp_ratios": 2, "attention": "cross_shaped",
    "ffn": "mixcfn",
}  # fmt: skip
CLASSES = 11
PX = 64
SCENES = f"data.options={{size: {PX}, number: 3}}"
FEW = f"run.workers=0,data.resolution_px=[{PX},{PX}],data.batch_size_per_process=2,data.global_batch_size=2"


def ship(folder: Path) -> None:
    """Write the network's YAML file; the package's networks are then those of the folder."""
    from hrvit_lab.config import shipped, write_yaml

    about = {
        "resolution_px": [PX, PX], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2], "interpolation": "bilinear",
        "crop_fraction": 1.0, "classes": [f"class {number}" for number in range(CLASSES)], "changes": CHANGES,
        "score": "miou", "score_percent": 12.5,
    }  # fmt: skip
    (folder / f"{NAME}.yaml").write_text(write_yaml(about, width=110))
    sys.modules["hrvit_lab.config.shipped"].FOLDER = folder  # type: ignore[attr-defined]
    shipped.cache_clear()


def differing(model: Any, weights: dict[str, Any]) -> list[str]:
    """Names of tensors that are not those of the file."""
    return sorted(key for key, value in model.state_dict().items() if not value.equal(weights[key]))


def main(folder: Path) -> dict[str, Any]:
    ship(folder)
    import torch
    from safetensors.torch import load_file, save_file

    from hrvit_lab import PRESETS, count, create_model, preset
    from hrvit_lab.evaluate.__main__ import main as evaluate
    from hrvit_lab.latency.models import randomize_norms
    from hrvit_lab.network.build import build
    from hrvit_lab.network.named import open_network
    from hrvit_lab.train.__main__ import main as train

    timm: Any = import_module("timm")
    file = folder / f"{NAME}.safetensors"
    made = build(PRESETS["hrvit_nano"].replace(num_classes=CLASSES, **CHANGES))
    randomize_norms(made)
    save_file({name: tensor.contiguous() for name, tensor in made.state_dict().items()}, file)
    weights, image = load_file(file), torch.rand(1, 3, PX, PX)
    ours = create_model(NAME, pretrained=True).eval()
    theirs = timm.create_model(NAME, pretrained=True).eval()
    other: dict[str, Any] = {"num_classes": 3, "in_chans": 1}
    maps = timm.create_model(NAME, pretrained=True, features_only=True).eval()
    with torch.no_grad():
        shapes = [list(one.shape) for one in maps(image)]
        same = bool(torch.equal(ours(image), theirs(image)) and torch.equal(ours(image), made.eval()(image)))
        shape = list(ours(image).shape)
    folders = ["--data", str(folder), "--device", "cpu", "--set", SCENES, "--set", FEW]
    rates = "schedule.iterations=1,schedule.warmup_iterations=0,schedule.min_rate=0,evaluation.every_iterations=1"
    trained = train(
        [
            "composites",
            "--model",
            NAME,
            *folders,
            "--set",
            f"{rates},optimiser.learning_rate=0",
            "--out",
            str(folder / "run"),
        ]
    )
    evaluated = evaluate([NAME, *folders, "--out", str(folder / "scores")])
    tuned = load_file(folder / "run" / "last.safetensors")
    opened = open_network(NAME)
    parameters = dict(made.named_parameters())
    return {
        "config": preset(NAME).model_dump(mode="json"),
        "same": same,
        "shape": shape,
        "macs": [count(NAME, PX).macs, count(made, PX).macs],
        "classes": list(timm.get_pretrained_cfg(NAME).label_names or ()),
        "input_size": list(theirs.pretrained_cfg["input_size"]),
        "untrained": timm.create_model(NAME).config.segformer_width,
        "preset": timm.create_model("hrvit_nano").config == PRESETS["hrvit_nano"],
        "new": [
            differing(make(NAME, pretrained=True, **other), weights) for make in (create_model, timm.create_model)
        ],
        "features": shapes,
        "opened": [opened.trained, opened.class_names[0], differing(opened.model, weights)],
        "trained": [trained, [key for key in parameters if not torch.equal(tuned[key], weights[key])]],
        "evaluated": [evaluated, json.loads((folder / "scores" / "scores.json").read_text())["n_seen"]],
    }  # fmt: skip


if __name__ == "__main__":
    found = main(Path(sys.argv[1]))
    (Path(sys.argv[1]) / "found.json").write_text(json.dumps(found))
