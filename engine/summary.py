"""What a finished run has to tell."""

from __future__ import annotations

from typing import Any

import msgspec


class RunSummary(msgspec.Struct, kw_only=True):
    """Result of `engine.run.run_pipeline`."""

    stats: dict[str, Any]
    """JSON-ready: frames in, results out, drops by reason, FPS, latency overall and by stage, restarts, versions."""
    exit_code: int
    """0: all sources ended or the user stopped the program; 1: the engine gave up, see `error`."""
    error: str | None = None
    """One sentence when the engine gave up."""
