"""Data in: one table of labelled keypoints, its readers, its checks and its graphs."""
