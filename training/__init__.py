"""Makes the models: data in, model folders out."""

import stages  # noqa: F401 - it keeps the runtimes from reporting home, which must come before they are loaded
