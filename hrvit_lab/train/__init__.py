"""Training: a short proxy training for studies, and full training by recipes."""
