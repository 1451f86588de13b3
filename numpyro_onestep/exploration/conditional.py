"""Whether to standardise local values given all others, by measurement."""

from __future__ import annotations

import numpy as np

from numpyro_onestep.exploration.modes import Exploration
from numpyro_onestep.target import Conditional, Target, find_conditional

# Spread of a Gaussian fit below which there is nothing to gain, and standard deviation of the
# log-volume of the local values from which on there is; in nats.
_LEAST_SPREAD, _LEAST_VOLUME_SPREAD = 0.2, 3.5
# Particles that are looked at.
_NUM_POINTS = 256


def choose_conditional(target: Target, found: Exploration) -> tuple[Conditional | None, int]:
    """What to standardise, where no Gaussian fits the posterior, or its best mode.

    Several modes may be fits along one neck.

    Args:
        target: in the coordinates that were explored.
        found: what was found there.

    Returns:
        None for nothing, and the number of gradients of the target that it took to find out.
    """
    particles = found.particles
    known = np.flatnonzero(np.isfinite(particles.log_density))[:_NUM_POINTS]
    if found.too_many or found.stopped or found.diverged or not known.size:
        return None, 0
    if particles.temperature < 1.0 or not float(found.modes[0].spread) > _LEAST_SPREAD:
        return None, 0
    return find_conditional(target, particles.points[known], _LEAST_VOLUME_SPREAD)
