"""The design space of networks."""
