"""How fast, and how true, on this machine."""
