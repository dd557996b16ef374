"""`python -m training.synth`."""

import sys

from training.synth.command import main

if __name__ == "__main__":
    sys.exit(main())
