"""This package, as it comes; only the pointwise log-likelihood, which no peer computes, is off."""

import jax
import numpy as np

from numpyro_onestep import Method, OneStepInference
from peers.base import Evidence, Outcome, Peer
from peers.posterior import Posterior

CHAINS = 4


def run(posterior: Posterior, budget: int, seed: int, *, method: Method | None = None) -> Outcome:
    """`budget` draws of the posterior group, from four times as many weighted ones."""
    inference = OneStepInference(
        posterior.model,
        num_samples=max(budget // CHAINS, 25),
        num_chains=CHAINS,
        method=method,
        progress_bar=False,
        log_likelihood=False,
    )
    result = inference.run(jax.random.key(seed), **posterior.arguments)
    stats, importance = result["sample_stats"], result["importance"]
    weights = {name: np.asarray(importance[name], float) for name in ("log_weight", "sign")}
    training = result["training"]
    return Outcome(
        draws={k: np.asarray(v) for k, v in inference.get_samples(group_by_chain=True).items()},
        densities=int(training["num_target_densities"]),
        gradients=int(training["num_target_gradients"]),
        evidence=Evidence(float(stats["log_evidence"]), float(stats["log_evidence_se"])),
        extra={
            "verdict": result.attrs["verdict"],
            "pareto_k": float(stats["pareto_k"]),
            "kish": float(stats["ess_importance"]),
            "weighted_draws": weights["sign"].size,
            "rounds": int(training["num_rounds"]),
            "seconds_train": float(training["seconds_train"]),
            "seconds_sample": float(training["seconds_sample"]),
        },
    )


PEERS = (
    Peer(
        "one-step",
        run,
        (1000, 4000, 20_000, 100_000),
        (4000, 100_000),
        settings="OneStepInference, defaults, log_likelihood=False; draws of its 4 chains",
    ),
)
