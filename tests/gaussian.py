"""Importance weights between two normals, with the draws that they belong to."""

import numpy as np


def gaussian_weights(rng, num, target_sd=1.0, proposal_sd=1.3):
    """Log-weights of N(0, target_sd^2) under proposals from N(0, proposal_sd^2), and the draws."""
    x = proposal_sd * rng.standard_normal(num)
    log_w = -0.5 * (x / target_sd) ** 2 - np.log(target_sd)
    return x, log_w + 0.5 * (x / proposal_sd) ** 2 + np.log(proposal_sd)
