"""What happens to a frame: one file a stage, pure functions on arrays first, then a thin class that holds state."""

import os
import sys

# OpenCV's helper threads spin for a while after each call (where they are pthreads, as on Linux), and the networks need
# the cores. It reads this at its first parallel call.
os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")

# Both runtimes report how they are used: ONNX Runtime from 1.29 on to Microsoft, OpenVINO to Google. This program sends
# nothing anywhere. The former reads this when it is loaded, the latter does without the package that would send.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # what `import` takes for not installed
