"""Ways to run trials: each takes what is missing and returns when it is in the store."""
