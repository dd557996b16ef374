"""For how long each pose was held, or in how many pictures it is: what a person wants to know of a session."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

from stages.packets import LONGEST_STEP_S, ArnisPacket


class PoseTally:
    """Adds up the time of accepted poses over the frames of all streams; of a folder that is not played as a film, it
    counts the pictures."""

    def __init__(self) -> None:
        self._held_s: defaultdict[str, float] = defaultdict(float)
        self._pictures: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._films: set[str] = set()
        self._last_pts: dict[str, float] = {}

    def count(self, packet: ArnisPacket) -> None:
        """Call with every packet of a stream, in order; the time of a frame that was dropped goes to the next one."""
        if packet.ended:
            return
        pose = packet.pose
        self.add(packet.stream, packet.pts, pose.label if pose and pose.accepted else None, packet.picture)

    def add(self, stream: str, pts: float, label: str | None, picture: str | None = None) -> float:
        """Count a frame that was not dropped and, if `label` is given, shows a pose. Returns the seconds since the one
        before, which go to the pose; 0 after a pause."""
        step_s = pts - self._last_pts.get(stream, -math.inf)
        self._last_pts[stream] = pts
        if 0 <= step_s <= LONGEST_STEP_S:
            self._films.add(stream)
        else:
            step_s = 0.0
        if label is not None:
            self._held_s[label] += step_s
            if picture is not None:
                self._pictures[stream][label] += 1
        return step_s

    def told(self) -> dict[str, str]:
        """By pose, the longest and then the most frequent first, with the unit."""
        told = {label: f"{held_s:.1f} s" for label, held_s in self.seconds().items() if held_s}
        alone: Counter[str] = Counter()
        for stream in self._pictures.keys() - self._films:
            alone += self._pictures[stream]
        for label, n in alone.most_common():
            number = f"{n} picture{'s' if n > 1 else ''}"
            told[label] = f"{told[label]} and {number}" if label in told else number
        return told

    def seconds(self) -> dict[str, float]:
        """Seconds by pose, the longest first."""
        ordered = sorted(self._held_s.items(), key=lambda item: -item[1])
        return {label: round(held_s, 2) for label, held_s in ordered}
