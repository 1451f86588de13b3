"""Long NUTS runs and independent evidences of the reference posteriors.

    python examples/benchmarks/reference.py --model seeds --data-dir DATA
    python examples/benchmarks/reference.py --quadrature

Writes one small JSON file per model under `references/`: mean and sd of every scalar of every
constrained site, each with its Monte Carlo standard error, and the bridge-sampling log evidence
(Meng and Wong 1996) with its error from disjoint blocks of draws. Everything runs in float64.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.flatten_util
import numpy as np
import numpyro
from numpyro.diagnostics import effective_sample_size, gelman_rubin
from numpyro.handlers import reparam
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import potential_energy, unconstrain_fn
from scipy import integrate, stats

import suite
from data import EIGHT_SCHOOLS

REFERENCES = Path(__file__).resolve().parent / "references"


def moments(draws: np.ndarray) -> dict[str, list]:
    """Mean and sd of draws: (chains, n, *event), with standard errors, each of shape event."""
    mean = draws.mean((0, 1))
    square = (draws - mean) ** 2
    sd = np.sqrt(square.mean((0, 1)))
    # Delta method: the error of the mean square, carried over to its root.
    ess = np.asarray(effective_sample_size(draws))
    ess_square = np.asarray(effective_sample_size(square))
    columns = {
        "mean": mean,
        "mean_mcse": sd / np.sqrt(ess),
        "sd": sd,
        "sd_mcse": square.std((0, 1)) / np.sqrt(ess_square) / (2.0 * sd),
        "r_hat": np.asarray(gelman_rubin(draws)),
    }
    return {k: np.vectorize(lambda v: float(f"{v:.7g}"))(c).tolist() for k, c in columns.items()}


def bridge(
    log_density: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    rng: np.random.Generator,
    *,
    blocks: int = 10,
    ratio: int = 4,
) -> tuple[float, float]:
    """Log evidence and its standard error from posterior draws x: (n, d), in order of chains.

    Each block of successive draws fits a Gaussian to all others, takes `ratio` draws of it for
    each of its own, and bridges between the two, so that the fit never sees the draws that it is
    compared with and the blocks are as good as independent.
    """
    parts = np.array_split(np.arange(len(x)), blocks)
    share, rest_share = -math.log1p(ratio), math.log(ratio) - math.log1p(ratio)
    estimates = []
    for part in parts:
        rest = np.delete(x, part, axis=0)
        proposal = stats.multivariate_normal(rest.mean(0), np.cov(rest.T))
        fresh = np.atleast_2d(proposal.rvs(ratio * len(part), random_state=rng))
        inside = log_density(x[part]) - proposal.logpdf(x[part])
        outside = log_density(fresh) - proposal.logpdf(fresh)
        log_z = np.median(inside)
        for _ in range(1000):
            above = outside - np.logaddexp(share + outside, rest_share + log_z)
            below = -np.logaddexp(share + inside, rest_share + log_z)
            log_ratio = np.logaddexp.reduce(above) - np.logaddexp.reduce(below)
            new = log_ratio - math.log(ratio)
            done = abs(new - log_z) < 1e-10
            log_z = new
            if done:
                break
        estimates.append(log_z)
    return float(np.mean(estimates)), float(np.std(estimates, ddof=1) / math.sqrt(blocks))


def quadrature() -> tuple[float, float]:
    """Log evidence of eight schools and its error: all but tau integrates in closed form."""
    y, variance = EIGHT_SCHOOLS["y"], EIGHT_SCHOOLS["sigma"] ** 2

    def integrand(tau: float) -> float:
        covariance = np.diag(tau**2 + variance) + 25.0
        likelihood = stats.multivariate_normal(np.zeros(8), covariance).pdf(y)
        return likelihood * stats.halfcauchy(scale=5.0).pdf(tau) * 1e13

    low, low_error = integrate.quad(integrand, 0.0, 20.0, epsabs=0.0, epsrel=1e-10)
    high, high_error = integrate.quad(integrand, 20.0, np.inf, epsabs=0.0, epsrel=1e-10)
    z = low + high
    return math.log(z) - 13.0 * math.log(10.0), (low_error + high_error) / z


def run(row: suite.Row, data_dir: str | None, *, warmup: int, draws: int, seed: int) -> dict:
    """The long run of one row, as the dictionary that its JSON file holds."""
    start = time.perf_counter()
    kwargs = row.load(data_dir)
    model = reparam(row.model, config=row.reparam) if row.reparam else row.model
    kernel = NUTS(model, target_accept_prob=0.95)
    mcmc = MCMC(
        kernel,
        num_warmup=warmup,
        num_samples=draws,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(seed), extra_fields=("diverging",), **kwargs)
    grouped = {k: np.asarray(v) for k, v in mcmc.get_samples(group_by_chain=True).items()}
    result = {
        "model": row.name,
        "chains": 4,
        "warmup": warmup,
        "draws": draws,
        "seed": seed,
        "divergences": int(mcmc.get_extra_fields()["diverging"].sum()),
        "sites": {k: moments(v) for k, v in grouped.items()},
    }

    flat = {k: v[::4] for k, v in mcmc.get_samples().items()}
    sites = jax.vmap(lambda s: unconstrain_fn(model, (), kwargs, s))(
        {k: flat[k] for k in mcmc.last_state.z}
    )
    one, unravel = jax.flatten_util.ravel_pytree(jax.tree.map(lambda v: v[0], sites))
    x = np.asarray(jax.vmap(lambda s: jax.flatten_util.ravel_pytree(s)[0])(sites))
    batched = jax.jit(
        lambda p: jax.lax.map(
            lambda q: -potential_energy(model, (), kwargs, unravel(q)), p, batch_size=256
        )
    )
    log_z, error = bridge(lambda p: np.asarray(batched(p)), x, np.random.default_rng(seed))
    result["bridge_log_z"], result["bridge_log_z_error"] = round(log_z, 5), round(error, 5)
    result["seconds"] = round(time.perf_counter() - start, 1)
    return result


def load(name: str) -> dict | None:
    """The stored long run of the model `name`, or None where there is none."""
    path = REFERENCES / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def main(argv: list[str] | None = None) -> None:
    """Runs what the command line asks for; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", help="name in the suite; may be repeated")
    parser.add_argument("--data-dir")
    parser.add_argument("--warmup", type=int, default=3000)
    parser.add_argument("--draws", type=int, default=25_000, help="per chain, of four chains")
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--quadrature", action="store_true", help="evidence of eight schools")
    options = parser.parse_args(argv)
    numpyro.enable_x64()
    if options.quadrature:
        log_z, error = quadrature()
        print(f"eight_schools by quadrature: log Z = {log_z:.6f}, relative error {error:.1e}")
    for name in options.model or []:
        row = suite.by_name(name)
        try:
            result = run(
                row, options.data_dir, warmup=options.warmup, draws=options.draws, seed=options.seed
            )
        except FileNotFoundError as error:
            print(f"{name}: skipped, {error}")
            continue
        REFERENCES.mkdir(exist_ok=True)
        (REFERENCES / f"{name}.json").write_text(json.dumps(result) + "\n")
        worst = max(np.max(site["r_hat"]) for site in result["sites"].values())
        print(
            f"{name}: bridge log Z = {result['bridge_log_z']:.4f}"
            f" +- {result['bridge_log_z_error']:.4f} (reference {row.log_z}),"
            f" worst r_hat {worst:.5f}, {result['divergences']} divergences,"
            f" {result['seconds']:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
