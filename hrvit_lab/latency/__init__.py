"""The latency lab: networks race, round by round, and each leaves a measurement that can be believed."""
