"""The one clock: comparable between processes; `time.monotonic` steps by 15.6 ms on older Windows, this does not."""

from time import perf_counter_ns

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
ABSENCE_NS = NS_PER_S
"""A loop that did not turn for longer was paused with the whole program (Ctrl-Z, a laptop that sleeps): what others did
not do meanwhile is no fault of theirs."""


def now_ns() -> int:
    """Nanoseconds since an arbitrary start, the same for every process."""
    return perf_counter_ns()
