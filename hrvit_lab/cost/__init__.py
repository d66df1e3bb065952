"""Costs of a network, in closed form from its config, or from one forward pass on the meta device."""
