"""Makes the stick detector: crops from renders and real clips in, `models/stick_*` out.

`training/MODELS.md` tells how the shipped weights were made.
"""
