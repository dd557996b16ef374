"""The engine's front door: runs a configured pipeline over some sources until they end or the user stops it."""

from __future__ import annotations

from collections.abc import Sequence

from engine import single, supervisor
from engine.config import Config
from engine.errors import UserError
from engine.health import RunSummary


def run_pipeline(
    config: Config,
    sources: Sequence[str],
    *,
    workers: int | None = None,
    duration_s: float | None = None,
    max_frames: int | None = None,
    log_level: str = "WARNING",
) -> RunSummary:
    """Run until every source has ended, `duration_s` is over, each stream has had `max_frames`, or a signal came.

    `workers`: None takes the processes that the configuration names (plus one for each source); 1 runs everything in
    this process, without sockets; n joins the first of the configured workers until n are left.
    Stream names are "0", "1", ... in the order of `sources`. Ctrl-C and SIGTERM end the run in good order.
    Raises UserError when a source, file or setting is at fault, whichever process found it; once frames flow, such a
    mistake ends the run and is in the summary, as there is something to account for.
    Processes are spawned: the calling script is a file and calls this under `if __name__ == "__main__":`.
    """
    if not sources:
        raise UserError("no source given: name at least one camera, file or address")
    config = config.with_workers(workers)
    if workers == 1:
        return single.run(config, sources, duration_s=duration_s, max_frames=max_frames)
    return supervisor.run(config, sources, duration_s=duration_s, max_frames=max_frames, log_level=log_level)
