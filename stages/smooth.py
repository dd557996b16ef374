"""Steadies the 17 body keypoints and the stick's two ends over time.

Three filters behind one interface: an exponential moving average, an exponentially weighted window and the One-Euro
filter. In all of them a missing point (NaN) stays missing and forgets its past, so that it returns where it is seen and
is not dragged from where it was; a point of low confidence moves less.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Annotated, ClassVar, Literal, Protocol

import msgspec
import numpy as np

from engine.stage import Context
from stages.graph import torso_length
from stages.packets import ArnisPacket, Stick
from stages.skeleton import BODY_COUNT, GRIP, NODE_COUNT, TIP

Method = Literal["ema", "window", "one_euro", "off"]

_FIRST_TORSO_PX = 100.0
"""What is supposed of somebody whose torso has not been seen yet."""


class SmoothSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [smooth]; `config.toml` says what each means, and its unit."""

    method: Method = "ema"
    alpha: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.7
    window: Annotated[int, msgspec.Meta(ge=1, le=60)] = 5
    min_cutoff_hz: Annotated[float, msgspec.Meta(gt=0.0, le=60.0)] = 1.5
    beta: Annotated[float, msgspec.Meta(ge=0.0, le=100.0)] = 10.0
    sure: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.5
    max_gap_s: Annotated[float, msgspec.Meta(gt=0.0, le=10.0)] = 1.2
    """Frames that the gate keeps from detection are no gap."""
    max_tip_jump: Annotated[float, msgspec.Meta(gt=0.0, le=10.0)] = 0.8


class Filter(Protocol):
    """One filter over N points."""

    def step(self, points: np.ndarray, weight: np.ndarray, at_s: float, scale: float) -> np.ndarray:
        """Filtered points: float (N, 2), NaN where `points` is NaN.

        `weight` (N,) is the trust in each point, 0..1; `at_s` the time in seconds, growing from call to call; `scale`
        the length of the torso in the unit of the points, so that speed means the same near and far.
        """

    def forget(self, rows: np.ndarray) -> None:
        """Let the points of these indices start anew."""


def smooth_keypoints(current: np.ndarray, previous: np.ndarray, alpha: np.ndarray | float) -> np.ndarray:
    """One step of the exponential moving average, `k = alpha k + (1 - alpha) k_prev`.

    `current` and `previous` are float (N, 2), `alpha` is a number or (N,) in 0..1. Where `previous` is NaN the current
    point is taken as it is; where `current` is NaN the result is NaN.
    """
    weight = np.broadcast_to(np.asarray(alpha, np.float64), current.shape[:1])[:, None]
    mixed = weight * current + (1.0 - weight) * previous
    return np.where(np.isnan(previous), current, mixed)


class ExponentialFilter:
    """Exponential moving average."""

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha
        self._state: np.ndarray | None = None

    def step(self, points: np.ndarray, weight: np.ndarray, at_s: float, scale: float) -> np.ndarray:
        previous = np.full_like(points, np.nan) if self._state is None else self._state
        self._state = smooth_keypoints(points, previous, self._alpha * weight)
        return self._state

    def forget(self, rows: np.ndarray) -> None:
        if self._state is not None:
            self._state[rows] = np.nan


class WindowFilter:
    """Weighted mean of the last few frames; a frame of age n weighs `alpha (1 - alpha)^n` times its confidence."""

    def __init__(self, alpha: float, window: int) -> None:
        self._decay = 1.0 - alpha
        self._frames: deque[np.ndarray] = deque(maxlen=window)
        self._weights: deque[np.ndarray] = deque(maxlen=window)

    def step(self, points: np.ndarray, weight: np.ndarray, at_s: float, scale: float) -> np.ndarray:
        self.forget(np.isnan(points).any(axis=1))
        self._frames.append(points.copy())
        self._weights.append(weight)
        ages = np.arange(len(self._frames) - 1, -1, -1, dtype=np.float64)
        weights = np.stack(self._weights) * self._decay ** ages[:, None]
        frames = np.stack(self._frames)
        weights = np.where(np.isnan(frames).any(axis=2), 0.0, weights)
        total = weights.sum(axis=0)[:, None]
        summed = (np.nan_to_num(frames) * weights[:, :, None]).sum(axis=0)
        return np.where(total > 0.0, summed / np.where(total > 0.0, total, 1.0), np.nan)

    def forget(self, rows: np.ndarray) -> None:
        for frame in self._frames:
            frame[rows] = np.nan


class OneEuroFilter:
    """Low-pass whose cut-off rises with speed: steady at rest, quick in motion.

    Casiez, Roussel and Vogel, "1 Euro Filter", CHI 2012: `alpha = 1 / (1 + tau / dt)`, `tau = 1 / (2 pi f)`,
    `f = min_cutoff + beta |speed|`, the speed itself low-passed at 1 Hz. Time steps are real; speed is in torso lengths
    a second.
    """

    SPEED_CUTOFF_HZ = 1.0

    def __init__(self, min_cutoff_hz: float, beta: float) -> None:
        self._min_cutoff_hz = min_cutoff_hz
        self._beta = beta
        self._points: np.ndarray | None = None
        self._speed: np.ndarray | None = None
        self._at_s = 0.0

    def step(self, points: np.ndarray, weight: np.ndarray, at_s: float, scale: float) -> np.ndarray:
        if self._points is None or self._speed is None:
            self._points, self._speed = np.full_like(points, np.nan), np.zeros_like(points)
        step_s = max(at_s - self._at_s, 1e-3)
        measured = np.nan_to_num((points - self._points) / (step_s * scale))
        speed = self._speed + low_pass_alpha(self.SPEED_CUTOFF_HZ, step_s) * (measured - self._speed)
        cutoff = self._min_cutoff_hz + self._beta * np.linalg.norm(speed, axis=1)
        filtered = smooth_keypoints(points, self._points, weight * low_pass_alpha(cutoff, step_s))
        self._points, self._at_s = filtered, at_s
        self._speed = np.where(np.isnan(points), 0.0, speed)
        return filtered

    def forget(self, rows: np.ndarray) -> None:
        if self._points is not None and self._speed is not None:
            self._points[rows] = np.nan
            self._speed[rows] = 0.0


def low_pass_alpha(cutoff_hz: np.ndarray | float, step_s: float) -> np.ndarray:
    """Weight of the new value in a first-order low-pass: `1 / (1 + tau / dt)` with `tau = 1 / (2 pi f)`."""
    tau = 1.0 / (2.0 * np.pi * np.asarray(cutoff_hz, np.float64))
    return np.asarray(1.0 / (1.0 + tau / step_s))


def make_filter(settings: SmoothSettings) -> Filter | None:
    """The filter that the settings ask for; None when smoothing is off."""
    if settings.method == "ema":
        return ExponentialFilter(settings.alpha)
    if settings.method == "window":
        return WindowFilter(settings.alpha, settings.window)
    if settings.method == "one_euro":
        return OneEuroFilter(settings.min_cutoff_hz, settings.beta)
    return None


class _Track(msgspec.Struct):
    track: int
    filter: Filter
    scale: float
    hand: str | None = None
    raw_tip: np.ndarray = msgspec.field(default_factory=lambda: np.full(2, np.nan))


class Smooth:
    """Smooths person and stick of each stream; `detected_tip` keeps the tip as it was detected."""

    name: ClassVar[str] = "smooth"
    settings_type: ClassVar[type[msgspec.Struct]] = SmoothSettings

    def __init__(self, settings: SmoothSettings) -> None:
        self._settings = settings
        self._tracks: dict[str, _Track] = {}
        self._frame_at_s: dict[str, float] = {}

    def open(self, context: Context) -> None:
        """Nothing to load."""

    def process(self, packet: ArnisPacket) -> ArnisPacket:
        gap_s = packet.pts - self._frame_at_s.get(packet.stream, -math.inf)
        self._frame_at_s[packet.stream] = packet.pts
        if packet.gate is not None and not packet.gate.detect:
            return packet
        if packet.person is None:
            self._tracks.pop(packet.stream, None)
            return packet
        stick = packet.stick
        track = self._track(packet.stream, packet.person.track, gap_s)
        if track is None:
            return packet
        points = np.full((NODE_COUNT, 3), np.nan)
        points[:BODY_COUNT] = packet.person.keypoints
        if stick is not None:
            points[GRIP], points[TIP] = stick.grip, stick.tip
        track.scale = float(torso_length(packet.person.keypoints)) or track.scale
        self._restart_stick(track, points, stick)
        weight = np.clip(np.nan_to_num(points[:, 2]) / self._settings.sure, 0.0, 1.0)
        smoothed = track.filter.step(points[:, :2], weight, packet.pts, track.scale)
        packet.person.keypoints = np.column_stack([smoothed, points[:, 2]])[:BODY_COUNT].astype(np.float32)
        if stick is not None:
            stick.grip = _end(smoothed[GRIP], stick.grip[2])
            stick.tip = _end(smoothed[TIP], stick.tip[2])
        return packet

    def has_work(self, packet: ArnisPacket) -> bool:
        return packet.person is not None

    def _track(self, stream: str, number: int, gap_s: float) -> _Track | None:
        """The state of this person; new after another person or a gap without a frame. None when smoothing is off."""
        track = self._tracks.get(stream)
        if track is not None and track.track == number and 0.0 < gap_s <= self._settings.max_gap_s:
            return track
        new = make_filter(self._settings)
        if new is None:
            return None
        self._tracks[stream] = _Track(number, new, _FIRST_TORSO_PX)
        return self._tracks[stream]

    def _restart_stick(self, track: _Track, points: np.ndarray, stick: Stick | None) -> None:
        """A change of hand or a jump of the tip is news, not noise; an average would lie where it never was."""
        jump = float(np.hypot(*(points[TIP, :2] - track.raw_tip)))
        hand = stick.hand if stick is not None and stick.grip[2] > 0 else track.hand
        if hand != track.hand or jump > self._settings.max_tip_jump * track.scale:
            track.filter.forget(np.array([GRIP, TIP]))
        track.hand, track.raw_tip = hand, points[TIP, :2].copy()


def _end(point: np.ndarray, confidence: float) -> tuple[float, float, float]:
    return float(point[0]), float(point[1]), confidence
