"""Draws people who hold a stick in the twelve poses, with exact keypoints: bodies, clothes, rooms, cameras."""
