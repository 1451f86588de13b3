"""nutpie: NUTS in Rust, plain and with its adaptation by a normalising flow."""

from functools import partial

import jax
import numpy as np

from peers.base import Evidence, Outcome, Peer
from peers.nuts import CHAINS, bridge_evidence
from peers.posterior import Posterior


def run(posterior: Posterior, budget: int, seed: int, *, adaptation: str) -> Outcome:
    """`budget` draws of four chains after nutpie's own number of tuning steps."""
    import nutpie
    from nutpie.compiled_pyfunc import from_pyfunc

    dim, calls = posterior.dim, [0]

    def make_log_density():
        compiled = jax.jit(jax.value_and_grad(posterior.log_joint))

        def log_density(x: np.ndarray) -> tuple[float, np.ndarray]:
            calls[0] += 1
            value, gradient = compiled(x)
            return float(value), np.asarray(gradient, np.float64)

        return log_density

    # The flat vector is what nutpie keeps: all draws are constrained in one call afterwards.
    model = from_pyfunc(
        dim,
        make_log_density,
        lambda seed1, seed2, chain: lambda x: {"x": np.asarray(x, np.float64)},
        [np.dtype(np.float64)],
        [(dim,)],
        ["x"],
        make_initial_point_fn=lambda seed: np.asarray(
            posterior.start(jax.random.key(seed % 2**32)), np.float64
        ),
        # For the flow's adaptation, which wants the first of several outputs.
        raw_logp_fn=lambda x: (posterior.log_joint(x),),
    )
    if adaptation == "flow":
        model = model.with_transform_adapt()
    trace = nutpie.sample(
        model,
        draws=max(budget // CHAINS, 10),
        chains=CHAINS,
        cores=1,
        seed=seed,
        save_warmup=False,
        progress_bar=False,
        adaptation=adaptation,
    )
    x = np.asarray(trace["posterior"]["x"])
    flat = x.reshape(-1, dim)
    sites = posterior.constrain(flat)
    steps = int(np.asarray(trace["sample_stats"]["n_steps"]).sum())

    def evidence() -> Evidence:
        return bridge_evidence(posterior, flat, seed)

    return Outcome(
        draws={name: v.reshape(CHAINS, -1, *v.shape[1:]) for name, v in sites.items()},
        # The flow's adaptation evaluates the density in JAX, past the counter.
        gradients=calls[0] if adaptation != "flow" else max(calls[0], steps),
        evidence=evidence,
        extra={"divergences": int(np.asarray(trace["sample_stats"]["diverging"]).sum())},
    )


PEERS = (
    Peer(
        "nutpie",
        partial(run, adaptation="diag"),
        (1000, 4000, 20_000, 100_000),
        (4000, 100_000),
        ("nutpie",),
        settings="4 chains, its own tuning; evidence by bridge sampling",
    ),
    Peer(
        "nutpie flow",
        partial(run, adaptation="flow"),
        (4000, 20_000, 100_000),
        (4000,),
        ("nutpie", "flowjax", "equinox"),
        settings="4 chains, flow adaptation, its own tuning; evidence by bridge sampling",
    ),
)
