"""Makes the stick detector: crops from renders and real clips in, `models/stick_*` out."""
