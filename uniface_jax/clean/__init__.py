"""Faults of a data set, found by any network: duplicates, wrong labels, what is no face."""
