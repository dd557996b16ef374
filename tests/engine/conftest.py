"""The engine's test bench: its parts are found by name, in this process and in the workers that it starts."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
