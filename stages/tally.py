"""For how long each pose was held, or in how many pictures it is: what a person wants to know of a session."""

from __future__ import annotations

from collections import Counter

from stages.packets import ArnisPacket

LONGEST_STEP_S = 1.0
"""A longer gap between two frames is a pause, not part of a pose."""


class PoseTally:
    """Adds up the time of accepted poses over the packets of all streams; of a folder that is not played as a film, it
    counts the pictures."""

    def __init__(self) -> None:
        self._held_s: dict[str, float] = {}
        self._pictures: Counter[str] = Counter()
        self._is_film = False
        self._last_pts: dict[str, float] = {}

    def count(self, packet: ArnisPacket) -> None:
        """Call with every packet of a stream, in order; the time of a frame that was dropped goes to the next one."""
        if packet.ended:
            return
        step_s = packet.pts - self._last_pts.get(packet.stream, packet.pts)
        self._is_film |= packet.stream in self._last_pts and step_s < LONGEST_STEP_S
        self._last_pts[packet.stream] = packet.pts
        if packet.status in ("ok", "held") and packet.pose is not None and packet.pose.accepted:
            label = packet.pose.label
            if packet.picture is not None:
                self._pictures[label] += 1
            self._held_s[label] = self._held_s.get(label, 0.0) + min(max(0.0, step_s), LONGEST_STEP_S)

    def told(self) -> dict[str, str]:
        """By pose, the longest or most frequent first, with the unit."""
        if self._pictures and not self._is_film:
            return {label: f"{n} picture{'s' if n > 1 else ''}" for label, n in self._pictures.most_common()}
        return {label: f"{held_s:.1f} s" for label, held_s in self.seconds().items()}

    def seconds(self) -> dict[str, float]:
        """Seconds by pose, the longest first."""
        ordered = sorted(self._held_s.items(), key=lambda item: -item[1])
        return {label: round(held_s, 2) for label, held_s in ordered}
