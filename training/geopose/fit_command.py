"""`arnis-train fit`."""

from training.geopose.command import add_fit_arguments as add_arguments
from training.geopose.command import run_fit as run

__all__ = ["add_arguments", "run"]
