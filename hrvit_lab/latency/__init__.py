"""The latency lab: compare networks in interleaved rounds, with checked outputs and an A/A control."""
