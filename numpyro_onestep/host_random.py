"""Random numbers on the host."""

from __future__ import annotations

import jax
import numpy as np


def host_generator(rng_key: jax.Array) -> np.random.Generator:
    """NumPy's generator seeded by a key, typed or legacy."""
    return np.random.default_rng(np.asarray(jax.random.key_data(rng_key)).ravel().tolist())
