"""Other people's loops over the same clip with the same work, for `arnis-bench --peers`; one file each."""
