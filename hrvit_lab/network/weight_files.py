"""Names of files of weights and results, without any slow import."""

RESULT = "result.json"
"""In the folder of any training: its scores and settings."""

RUN_WEIGHTS = ("best.safetensors", "last.safetensors")
"""In the folder of a training by a recipe, the first choice first."""

WEIGHTS = (*RUN_WEIGHTS, "model.safetensors")
"""In the folder of any training, the first choice first."""

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
"""Of files that are offered as weights; `hrvit_lab.network.checkpoints.load_checkpoint` reads files of any name."""
