"""Exact statistics of all pairs of one or two sets, tile by tile."""
