"""What importing the stages does to a process."""

from __future__ import annotations

import subprocess
import sys


def test_opencv_starts_no_helper_threads() -> None:
    code = "import cv2, stages; print(cv2.getNumThreads())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
