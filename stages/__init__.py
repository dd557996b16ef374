"""What happens to a frame: one file a stage, pure functions on arrays first, then a thin class that holds state."""

import cv2

# OpenCV's helper threads spin for a while after each call, and the networks need the cores.
cv2.setNumThreads(1)
