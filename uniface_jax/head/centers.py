"""Class centers in a teacher's space in place of learned prototypes: AdaDistill.

Boutros et al., "AdaDistill: Adaptive Knowledge Distillation for Deep Face Recognition", ECCV 2024.
No gradient reaches the centers: each moves toward what the teacher says of its class's images, the
less the better student and center agree with it. The student is compared with them as with
prototypes. They stand in the prototypes' place, split over the devices.

Everything here is per device and runs under the named axis AXIS.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from uniface_jax.head.blocks import unit
from uniface_jax.head.samples import last_rows
from uniface_jax.runtime.parallel import AXIS

LEAST = 1e-6  # of both factors of α, as the release has it


class Moved(NamedTuple):
    """Centers [S, T] after a step's batch, and means [] over it.

    kept: of α, the share of a center that stays. cosine: of student and teacher.
    """

    centers: jax.Array
    kept: jax.Array
    cosine: jax.Array


def moved(
    centers: jax.Array,
    student: jax.Array,
    teacher: jax.Array,
    labels: jax.Array,
    start: jax.Array | int,
) -> Moved:
    """Return the centers c_y <- α c_y + (1 - α) x_t of the classes of the global batch.

    α = clip(cos(x_s, x_t) clip(cos(c_y, x_t), 1e-6, 1), 1e-6, 1), with x_t of unit length; centers
    are not normalized again. All start from the center before the step, and of several samples of a
    class the last of the batch counts.

    Args:
        centers: [S, T], this device's.
        student: [b, T], features of this device's samples in the teacher's space.
        teacher: [b, T].
        labels: [b] int32.
        start: number of this device's first class.
    """
    everyone, targets, classes = (
        jax.lax.all_gather(x, AXIS, tiled=True)
        for x in (unit(student), unit(teacher.astype(student.dtype)), labels)
    )
    rows = centers.shape[0]
    cosine = jnp.clip(jnp.sum(everyone * targets, -1), -1, 1)
    own = centers[jnp.clip(classes - start, 0, rows - 1)]
    agreement = jnp.clip(jnp.sum(unit(own) * targets, -1), LEAST, 1)
    kept = jnp.clip(cosine * agreement, LEAST, 1)
    after = kept[:, None] * own + (1 - kept[:, None]) * targets
    order, place = last_rows(classes, start, rows)
    here = (classes >= start) & (classes < start + rows)
    mean = jax.lax.psum(jnp.sum(jnp.where(here, kept, 0)), AXIS) / classes.shape[0]
    return Moved(
        centers.at[place].set(after[order].astype(centers.dtype), mode="drop"),
        mean,
        jnp.mean(cosine),
    )
