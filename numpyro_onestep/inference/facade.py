"""`OneStepInference`: any NumPyro model in; draws, weights, evidence and a verdict out."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import MCMC, init_to_uniform

from numpyro_onestep.diagnostics import Verdict
from numpyro_onestep.inference.drawing import (
    OneStepDraws,
    chunk_size,
    plain_draws,
    weigh,
    weighted_draws,
)
from numpyro_onestep.inference.progress import Progress
from numpyro_onestep.inference.result import to_inference_data
from numpyro_onestep.inference.run import POSTERIORS, Fit, Posterior, Run, finish
from numpyro_onestep.inference.summary import format_summary
from numpyro_onestep.inference_data import AxisNames, check_names, merge_names
from numpyro_onestep.target import Target, build_target
from numpyro_onestep.training import TrainingSettings, train


class OneStepInference(MCMC):
    """Posterior inference for a NumPyro model with a one-step diffusion sampler.

    A drop-in for `MCMC(NUTS(model))` that also returns the evidence `log p(y)` with an error and a
    verdict on itself. It is a subclass for those who ask, such as `arviz.from_numpyro` from ArviZ
    1.3 on; there is no warm-up and no state of a chain.

    Args:
        model: a NumPyro model; continuous latent sites, finite discrete ones are summed out.
        num_samples: draws per chain.
        num_chains: chains of the posterior group.
        num_steps: steps of the sampler per draw; 1 is the fastest, more can be more accurate.
        posterior: what the equally weighted draws of the posterior group are. "imh": independence
            Metropolis-Hastings chains over the raw draws, four to a draw, exact in the limit, whose
            `r_hat` and `ess_bulk` tell the truth; "resampled": as many raw draws resampled by
            their Pareto-smoothed weights; "weighted": the raw draws as they are, for those who
            apply the weights themselves.
        init_strategy: where the Gaussian fit starts, as for NUTS.
        settings: of the training.
        time_limit: seconds after which training ends with what it has; None for no limit.
        progress_bar: a bar over training rounds; always off where the variable `CI` is set.
        coords: coordinates by dimension, for ArviZ.
        dims: names of the dimensions by site, for ArviZ; plates name theirs already.
        log_likelihood: whether the result holds the pointwise log-likelihood, for `az.loo`.

    Raises:
        ValueError: for sizes below one, fewer than 100 draws altogether, or unknown options.
    """

    thinning = 1

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        num_samples: int = 1000,
        num_chains: int = 4,
        num_steps: int = 1,
        posterior: Posterior = "imh",
        init_strategy: Callable[..., Any] = init_to_uniform,
        settings: TrainingSettings | None = None,
        time_limit: float | None = None,
        progress_bar: bool = True,
        coords: Mapping[str, Sequence[Any]] | None = None,
        dims: Mapping[str, Sequence[str]] | None = None,
        log_likelihood: bool = True,
    ) -> None:
        """See the class."""
        # Not MCMC's own __init__: there is no kernel to set up.
        if not callable(model):
            raise ValueError(f"expected a NumPyro model, a callable; got {model!r}")
        _check_positive("num_samples", num_samples)
        _check_positive("num_chains", num_chains)
        _check_positive("num_steps", num_steps)
        if num_samples * num_chains < _MIN_DRAWS:
            raise ValueError(
                f"expected num_samples * num_chains >= {_MIN_DRAWS}, too few draws for weights "
                f"and their diagnostics otherwise; got {num_samples} * {num_chains}"
            )
        if posterior not in POSTERIORS:
            raise ValueError(f"expected posterior to be one of {POSTERIORS}; got {posterior!r}")
        if time_limit is not None and not time_limit > 0:
            raise ValueError(f"expected a positive time_limit in seconds; got {time_limit!r}")
        self.num_samples = num_samples
        self.num_chains = num_chains
        self.num_steps = num_steps
        self.settings = settings or TrainingSettings()
        self.sampler = SimpleNamespace(model=model)
        self._posterior = posterior
        self._init_strategy = init_strategy
        self._time_limit = time_limit
        self._progress_bar = progress_bar
        self._coords = dict(coords or {})
        self._dims = dict(dims or {})
        self._log_likelihood = log_likelihood
        self._fit: Fit | None = None
        self._run: Run | None = None
        self._result: Any = None

    @property
    def model(self) -> Callable[..., Any]:
        """The user's model."""
        return self.sampler.model

    # ArviZ reads the arguments of the last run under the names that they have in `MCMC`.
    @property
    def _args(self) -> tuple[Any, ...]:
        return self._fit.args if self._fit else ()

    @property
    def _kwargs(self) -> dict[str, Any]:
        return self._fit.kwargs if self._fit else {}

    def run(self, rng_key: jax.Array, *args: Any, **kwargs: Any) -> Any:
        """Trains a sampler for the model with these arguments and draws from it.

        Args:
            rng_key: a typed or a legacy key; the result is a function of it.
            *args: arguments of the model.
            **kwargs: keyword arguments of the model.

        Returns:
            `InferenceData` (ArviZ 0.23) or `xarray.DataTree` (1.x) with the groups posterior,
            sample_stats, importance, training, observed_data and, where they exist, constant_data
            and log_likelihood.

        Raises:
            ValueError: for a model or data that cannot be sampled, naming the site.
        """
        began = time.perf_counter()
        # With four keys, folded: adding a use later does not change the numbers of the others.
        key_build, key_train, key_draw, key_check = (
            jax.random.fold_in(rng_key, i) for i in range(4)
        )
        target = build_target(
            key_build, self.model, args, kwargs, init_strategy=self._init_strategy
        )
        names = merge_names(target.dims, target.coords, self._dims, self._coords)
        _check_names(target, names)
        rounds = self.settings.max_rounds + self.settings.num_annealing
        with Progress(rounds, shown=self._progress_bar) as on_round:
            trained, history = train(
                target,
                key_train,
                self.settings,
                time_limit=self._time_limit,
                on_round=on_round,
            )
        sampled = time.perf_counter()
        chunk = chunk_size(target.dim, self.settings.width, self.settings.num_points)
        fit = Fit(target, trained, history, chunk, args, kwargs)
        try:
            run = finish(
                fit,
                key_draw,
                key_check,
                num_chains=self.num_chains,
                num_samples=self.num_samples,
                num_steps=self.num_steps,
                posterior=self._posterior,
            )
        except KeyboardInterrupt:
            # What took long is kept: `sample` works.
            self._fit, self._run, self._result = fit, None, None
            raise
        ended = time.perf_counter()
        result = to_inference_data(
            run,
            self.model,
            names,
            num_steps=self.num_steps,
            posterior=self._posterior,
            seconds={
                "train": history.seconds,
                "sample": ended - sampled,
                "total": ended - began,
            },
            log_likelihood=self._log_likelihood,
        )
        # Only now: a run that fails leaves the last one as it was.
        self._fit, self._run, self._result = fit, run, result
        if run.verdict.label == "unreliable":
            warnings.warn(
                "the verdict on this run is 'unreliable': " + " ".join(run.verdict.reasons),
                stacklevel=2,
            )
        return result

    def sample(
        self,
        rng_key: jax.Array,
        num_samples: int,
        *,
        num_steps: int | None = None,
        weights: bool = True,
    ) -> OneStepDraws:
        """New independent draws from the trained sampler: no training, one evaluation per step.

        Args:
            rng_key: a key that was not used for another call.
            num_samples: number of draws, `n`.
            num_steps: steps per draw; by default those of the run.
            weights: whether to compute the exact weights, and the evidence from them.

        Returns:
            Samples `(n, *event)` with log-weights `(n,)`.

        Raises:
            RuntimeError: before `run`.
            ValueError: for sizes below one.
        """
        fit = _required(self._fit)
        _check_positive("num_samples", num_samples)
        num_steps = self.num_steps if num_steps is None else num_steps
        _check_positive("num_steps", num_steps)
        blocks = fit.trained.flow.steps(fit.trained.params, num_steps)
        if not weights:
            samples = plain_draws(fit.target, fit.trained, blocks, rng_key, num_samples)
            return OneStepDraws(samples)
        draws, _ = weighted_draws(fit.target, fit.trained, blocks, rng_key, num_samples, fit.chunk)
        found = weigh(draws, fit.trained).evidence
        return OneStepDraws(fit.target.constrain(draws.x), draws.log_weight, draws.sign, found)

    def get_samples(self, group_by_chain: bool = False) -> dict[str, jax.Array]:  # noqa: FBT001, FBT002
        """Draws of the posterior group: constrained sites and deterministics, as from `MCMC`.

        Returns:
            Arrays `(num_chains * num_samples, *event)`, or `(num_chains, num_samples, *event)`.
        """
        run = self._finished()
        return run.posterior(run.indices if group_by_chain else run.indices.reshape(-1))

    def get_weighted_samples(self) -> tuple[dict[str, jax.Array], np.ndarray]:
        """The raw independent draws and their log-weights.

        Returns:
            Samples `(n, *event)` and `log w`, `(n,)`, float64. Folded draws, whose weight is
            negative, have -inf; the group `importance` holds `log|w|` and its sign.
        """
        run = self._finished()
        log_weight = np.where(run.draws.sign > 0, run.draws.log_weight, -np.inf)
        return {name: jnp.asarray(value) for name, value in run.samples.items()}, log_weight

    def get_extra_fields(self, group_by_chain: bool = False) -> dict[str, np.ndarray]:  # noqa: FBT001, FBT002
        """Statistics of the posterior draws, as from `MCMC`: `lp`, `log_q`, `acceptance_rate`."""
        stats = self._finished().draw_stats
        if group_by_chain:
            return dict(stats)
        return {name: value.reshape(-1) for name, value in stats.items()}

    def print_summary(self, prob: float = 0.9) -> None:
        """Prints the table of the posterior, the evidence, the weights and the verdict."""
        print(format_summary(self.inference_data, prob=prob))

    @property
    def verdict(self) -> Verdict:
        """Whether the run can be believed, with reasons."""
        return self._finished().verdict

    @property
    def inference_data(self) -> Any:
        """What `run` returned."""
        return _required(self._result)

    @property
    def last_target(self) -> Target:
        """The model of the last run as a log-density in unconstrained coordinates."""
        return self._finished().fit.target

    def _finished(self) -> Run:
        return _required(self._run)


_MIN_DRAWS = 100
_Part = TypeVar("_Part")


def _check_names(target: Target, names: AxisNames) -> None:
    """Fails on dims and coords that do not fit before any work is done."""
    shapes = jax.eval_shape(target.constrain_one, jnp.zeros(target.dim))
    # The same groups as in the result; factors are observations without elements.
    observed = {name: v for name, v in target.observed_data.items() if v.size}
    for group in (shapes, observed, target.constant_data):
        check_names({name: leaf.shape for name, leaf in group.items()}, names)


def _required(part: _Part | None) -> _Part:
    """What a finished run leaves, or the error that there is none."""
    if part is None:
        raise RuntimeError("expected a finished run: call `run` first")
    return part


def _check_positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"expected {name} to be a positive int; got {value!r}")
