"""What happens to a frame: one file a stage, pure functions on arrays first, then a thin class that holds state."""

import os

# OpenCV's helper threads spin for a while after each call (where they are pthreads, as on Linux), and the networks need
# the cores. It reads this at its first parallel call.
os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")
