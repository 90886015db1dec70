"""Data sets behind one protocol: items by position, with labels."""
