"""Inspection of a loss: its curves, the similarities that it makes, and one threshold for all."""
