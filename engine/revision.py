"""Which source it is that runs, for what is made or measured with it."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git_revision() -> str:
    """Short hash of the commit that runs, with a plus when files differ from it; `unknown` outside of a checkout."""
    here = Path(__file__).parent
    try:
        asked = [
            subprocess.run(["git", *what], cwd=here, capture_output=True, text=True, timeout=10)
            for what in (
                ["ls-files", "--error-unmatch", Path(__file__).name],  # installed inside another project's checkout?
                ["rev-parse", "--short", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no"],
            )
        ]
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    if any(answer.returncode for answer in asked):
        return "unknown"
    return asked[1].stdout.strip() + ("+" if asked[2].stdout.strip() else "")
