"""The network: its parts as modules, building from a config, checkpoints, and forms for inference."""
