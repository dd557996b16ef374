"""What happens to a frame: one file a stage, pure functions on arrays first, then a thin class that holds state."""
