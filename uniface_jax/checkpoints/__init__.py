"""Checkpoints of training: reading and saving, the only rooms that know Orbax."""
