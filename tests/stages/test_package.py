"""What importing the stages does to a process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere its threads are the system's and don't spin")
def test_opencv_starts_no_helper_threads() -> None:
    code = "import cv2, stages; print(cv2.getNumThreads())"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV_")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "1"
