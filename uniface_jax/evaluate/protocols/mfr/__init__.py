"""MFR: all-to-all by population, masked faces."""
