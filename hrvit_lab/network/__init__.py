"""The network: its parts as modules, how a config becomes one, and the forms in which it is served."""
