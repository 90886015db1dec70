"""Files that are written whole and read within bounds."""
