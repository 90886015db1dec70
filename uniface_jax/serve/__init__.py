"""Answers over HTTP: features, comparisons and searches, in batches and within bounds."""
