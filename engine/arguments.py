"""Command lines whose mistakes get one sentence, as every other mistake does."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Without the usage, which buries what is wrong."""

    def error(self, message: str) -> NoReturn:
        """Says so and ends with exit code 2."""
        sys.stderr.write(f"{self.prog}: {message} (see --help)\n")
        raise SystemExit(2)
