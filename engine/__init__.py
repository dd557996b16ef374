"""Moves frames and typed messages between processes; knows nothing of what is recognised in them.

To build on it: `run.run_pipeline` runs what `config.load_config` has read; sources and stages are what `stage` says,
with a `packet.Packet` of one's own, `clock.now_ns` and `errors.UserError`; `client.subscribe` reads what is published.
"""
