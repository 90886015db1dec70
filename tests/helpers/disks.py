"""Disks that a test fills."""

from pathlib import Path


def fill(disk: Path) -> Path:
    """Write a file that leaves no byte free; return its path."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 512):
                pass
        except OSError:
            return path
