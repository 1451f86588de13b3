"""Which targets have second derivatives."""

from __future__ import annotations

import jax
import numpy as np

from numpyro_onestep.target.base import Target


def has_hessians(target: Target, x: jax.Array | np.ndarray) -> bool:
    """Whether the model's gradient has derivatives: not where it is a rule of its own for JAX."""
    gradient = jax.grad(target.log_density)
    try:
        jax.eval_shape(lambda x: jax.jvp(gradient, (x,), (x,)), x)
    except Exception:  # whatever the model's code raises
        return False
    return True
