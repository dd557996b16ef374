"""Draws people who hold a stick in the twelve poses, with exact keypoints: bodies, clothes, rooms, cameras."""

from training.synth.command import add_arguments, run

__all__ = ["add_arguments", "run"]
