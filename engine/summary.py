"""What a finished run has to tell."""

from __future__ import annotations

from typing import Any

import msgspec


class RunSummary(msgspec.Struct, kw_only=True):
    """Result of `engine.run.run_pipeline`."""

    stats: dict[str, Any]
    """JSON-ready: frames in, results out, drops by reason, FPS, latency overall and by stage, restarts, versions."""
    exit_code: int
    """0: all sources ended or the user stopped the program; 1: the engine gave up, 2: a user's mistake, see `error`."""
    error: str | None = None
    """One sentence when the run was cut short."""

    @classmethod
    def of(cls, stats: dict[str, Any], *, user_error: str | None, failure: str | None) -> RunSummary:
        """`user_error`: what the user can mend, which then says more than the failure."""
        return cls(stats=stats, exit_code=2 if user_error else 1 if failure else 0, error=user_error or failure)
