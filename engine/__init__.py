"""Moves frames and typed messages between processes; knows nothing of what is recognised in them."""
