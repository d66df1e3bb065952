"""The space of networks, and search in it."""
