"""`arnis-stream`, also as `python -m stages`: Ctrl-C ends it quietly even while its parts are being imported."""

from __future__ import annotations

import sys

INTERRUPTED = 130
"""What shells expect of a program that Ctrl-C has ended."""


def main() -> int:
    """Entry point; exit codes as of `stages.app.main`."""
    try:
        from stages.app import main as stream

        return stream()
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
