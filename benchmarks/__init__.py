"""How fast, and how true, on this machine."""

import stages  # noqa: F401 - it keeps the runtimes from reporting home, which must come before they are loaded
