"""What a network costs: in closed form from its config, or by running it once on the meta device."""
