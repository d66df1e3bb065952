"""The latency lab's command line: ``python -m hrvit_lab.latency``. Its engine is ``hrvit_lab.measure.lab``."""
