"""The error for a file of a data set that cannot be used."""

from hrvit_lab.errors import ConfigError


class BrokenSample(ConfigError):
    """A file that cannot be used; the message has its name and the remedy."""
