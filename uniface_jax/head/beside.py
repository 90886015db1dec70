"""Names of what is trained beside a network, and stands among its parameters in a run's state."""

from collections.abc import Mapping
from typing import Any

TO_TEACHER = "to_teacher"  # the student's linear map [D, T] to a teacher's features
QUALITY = "quality"  # the linear head of an image's quality: kernel [D] and bias []
BESIDE = (TO_TEACHER, QUALITY)


def alone(network: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a run's network without what is trained beside it."""
    return {name: array for name, array in network.items() if name not in BESIDE}
