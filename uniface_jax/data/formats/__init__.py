"""File formats as they lie on disk, read as hostile."""
