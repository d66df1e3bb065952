"""Export networks to files that a runtime loads: one module per format, one line in ``formats.FORMATS``."""
