"""`arnis-train export`."""

from training.geopose.command import add_export_arguments as add_arguments
from training.geopose.command import run_export as run

__all__ = ["add_arguments", "run"]
