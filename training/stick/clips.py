"""Frames of real video with the keypoints that the shipped body detector finds in them, as when serving."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from engine.errors import UserError
from stages.detect import DetectSettings, choose_person, make_body_detector
from stages.detectors import BodyCandidate, BodyDetector, Runtime, open_model
from stages.detectors.movenet import MoveNet
from training.stick.cache import made_from, refuse_others, save_samples
from training.stick.data import Find, cache_sample

log = logging.getLogger(__name__)

HELD_OUT = ("sam2_juggle", "tfjs_pose_squats")
"""Clips that training never sees, so that false alarms on real video can be counted honestly."""

FRAMES_PER_CLIP = 60
"""That are learnt from."""

REFERENCE = "movenet_thunder"
"""Model whose bodies count as true on real clips."""

_FRAME_SIDE_PX = 1280


def body_detector(threads: int = 1) -> MoveNet:
    """The shipped MoveNet Thunder on ONNX Runtime."""
    card, network = open_model(REFERENCE, Runtime(backend="onnxruntime", threads=threads), ["body"])
    return MoveNet(REFERENCE, card, network)


def served_detector() -> BodyDetector:
    """The body detector that the program uses unless it is told otherwise, on ONNX Runtime."""
    return make_body_detector(DetectSettings().body, Runtime(backend="onnxruntime", threads=1))


def keypoints_finder(detector: BodyDetector) -> Find:
    """Keypoints of the person in a picture as in a video of it, where the second look knows of the first."""

    def find(image: np.ndarray, name: str) -> np.ndarray | None:
        found = detector.detect(image, None, name, 0.0)
        again = detector.detect(image, found[0], name, 1 / 30) if found else []
        return (again or found)[0].keypoints if found else None

    return find


def clip_frames(clip: Path, step: int = 1) -> Iterator[tuple[float, np.ndarray]]:
    """Second and picture, uint8 (H, W, 3) BGR, of every `step`-th frame, shrunk to what serving would look at.

    Raises UserError when the clip cannot be read.
    """
    capture = cv2.VideoCapture(str(clip))
    if not capture.isOpened():
        raise UserError(f"clip {clip} cannot be read; give a video file")
    index = -1
    while capture.grab():
        index += 1
        if index % step == 0:
            yield capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, _bounded(capture.retrieve()[1])
    capture.release()


def step_for(clip: Path, frames: int) -> int:
    """Step that leaves about `frames` frames of a clip."""
    return max(1, int(cv2.VideoCapture(str(clip)).get(cv2.CAP_PROP_FRAME_COUNT)) // frames)


class Follower:
    """Looks at a clip's frames one after the other, as serving does: what was found is followed."""

    def __init__(self, finder: BodyDetector) -> None:
        self._finder = finder
        self._previous: BodyCandidate | None = None

    def look(self, time_s: float, frame: np.ndarray, beside: BodyCandidate | None = None) -> BodyCandidate | None:
        """The person of this frame; of several the one at `beside`, by default the one of the frame before."""
        found = self._finder.detect(frame, self._previous, "", time_s)
        self._previous = choose_person(found, beside or self._previous)
        return self._previous


def frames_with_person(
    clip: Path, finder: BodyDetector, step: int = 1
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Every `step`-th frame, uint8 (H, W, 3) BGR, and keypoints (17, 3) in its pixels, None when nobody is found.

    Raises UserError when the clip cannot be read.
    """
    follower = Follower(finder)
    for time_s, frame in clip_frames(clip, step):
        body = follower.look(time_s, frame)
        yield frame, None if body is None else body.keypoints


def cache_clips(clips: list[Path], cache: Path, frames_per_clip: int = FRAMES_PER_CLIP) -> int:
    """Cache crops of people in clips (without those held out) that are not cached yet, as a new shard of `clips`;
    returns how many.

    Thunder's body counts as true, and a stick is drawn into its hand; the network is told what the program would see.
    Raises UserError when the cache holds any of other clips: they would be learnt from.
    """
    learnt = [clip for clip in clips if clip.stem not in HELD_OUT]
    given = {f"{clip.name} {clip.stat().st_size}:{frames_per_clip}": clip for clip in learnt}
    done = made_from(cache, "clips")
    why = "not, or no longer so, among the videos of --clips" if clips else "a clip, and --clips is not given"
    refuse_others(cache, done, given, why)
    fresh = {source: clip for source, clip in given.items() if source not in done}
    if not fresh:
        return 0
    images: list[np.ndarray] = []
    keypoints: list[np.ndarray] = []
    bodies: list[np.ndarray] = []
    reference, served = body_detector(), served_detector()
    for clip in fresh.values():
        before, true, seen = len(images), Follower(reference), Follower(served)
        for time_s, frame in clip_frames(clip, step_for(clip, frames_per_clip)):
            person = true.look(time_s, frame)
            told = seen.look(time_s, frame, beside=person)
            if person is not None and told is not None:
                for kept, made in zip(
                    (images, keypoints, bodies), cache_sample(frame, person.keypoints, told.keypoints), strict=True
                ):
                    kept.append(made)
        log.info("clip %s: %d frames with a person", clip.stem, len(images) - before)
    if images:
        save_samples(cache, "clips", images, keypoints, bodies, list(fresh))
    return len(images)


def _bounded(frame: np.ndarray) -> np.ndarray:
    """The frame, shrunk when a side is longer than serving would look at."""
    scale = _FRAME_SIDE_PX / max(frame.shape[:2])
    return cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else frame
