"""Short-budget training on real images: an accuracy proxy, labelled as such, never on the paper's axis."""
