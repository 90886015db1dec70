"""Streamed head: prototypes in shards, sampled classes, and the loss over them by blocks."""
