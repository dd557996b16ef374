"""How often and how fast a failing worker is started again."""

from __future__ import annotations

from collections import deque

from engine.clock import NS_PER_S

_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 8.0


class RestartBudget:
    """At most `restarts` within `within_s`; the first at once, then after 0.5 s, 1 s, 2 s ... up to 8 s."""

    def __init__(self, restarts: int, within_s: float) -> None:
        self._restarts = restarts
        self._within_ns = int(within_s * NS_PER_S)
        self._failures: deque[int] = deque()

    @property
    def failures(self) -> int:
        """Failures within the window that ends with the newest one."""
        return len(self._failures)

    def spend(self, now_ns: int) -> int | None:
        """The worker failed: when to start it again, in nanoseconds of the clock; None: give up."""
        while self._failures and now_ns - self._failures[0] > self._within_ns:
            self._failures.popleft()
        self._failures.append(now_ns)
        count = len(self._failures)
        if count > self._restarts:
            return None
        delay_s = 0.0 if count == 1 else min(_FIRST_DELAY_S * 2 ** (count - 2), _LONGEST_DELAY_S)
        return now_ns + int(delay_s * NS_PER_S)
