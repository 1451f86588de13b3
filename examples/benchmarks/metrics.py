r"""How far a sampler is from a target that can be sampled: bounds, effective draws, distances.

With weights `w = gamma / q`, of the sampler's draws and of draws `y` of the target,

    ELBO = E_q[log w],     EUBO = E_p[log w],
    reverse ESS = E_q[w]^2 / E_q[w^2],     forward ESS = 1 / (E_p[w] E_p[1 / w]),

the latter two as shares of the draws: a sampler that misses a mode has a high reverse ESS and a low
forward one (Blessing et al., arXiv 2406.07423). The distances compare two equally weighted sets of
points, so they judge the draws as they come, without their weights.
"""

import jax.numpy as jnp
import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import logsumexp


def forward_ess(log_weight: np.ndarray) -> float:
    """Share (0 to 1) from the log-weights of draws of the target, `(n,)`."""
    log_w = np.asarray(log_weight, np.float64)
    size = np.log(len(log_w))
    return float(np.exp(2.0 * size - logsumexp(log_w) - logsumexp(-log_w)))


def mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Maximum mean discrepancy of points `(n, d)` and `(m, d)`, unbiased, a root; 0 if negative.

    Gaussian kernel, its length the median distance within `y` (Gretton et al., 2012, equation 3).
    """
    within = cdist(y, y, "sqeuclidean")
    length = np.median(within[np.triu_indices(len(y), 1)])
    squares = cdist(x, x, "sqeuclidean"), within, cdist(x, y, "sqeuclidean")
    k_xx, k_yy, k_xy = (np.exp(-0.5 * square / length) for square in squares)
    n, m = len(x), len(y)
    same = (k_xx.sum() - n) / (n * (n - 1)) + (k_yy.sum() - m) / (m * (m - 1))
    return float(np.sqrt(max(same - 2.0 * k_xy.mean(), 0.0)))


def sinkhorn(x: np.ndarray, y: np.ndarray) -> float:
    """Entropic transport cost of points `(n, d)` to `(m, d)`, squared Euclidean.

    The regularisation is the default of ott-jax, a twentieth of the standard deviation of the
    costs; even two sets of draws of one target are some distance apart.
    """
    from ott.geometry import pointcloud
    from ott.solvers import linear

    geometry = pointcloud.PointCloud(jnp.asarray(x), jnp.asarray(y))
    return float(linear.solve(geometry).primal_cost)
