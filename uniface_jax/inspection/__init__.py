"""What a loss does: its curves, the similarities that it makes, and whether one threshold fits."""
