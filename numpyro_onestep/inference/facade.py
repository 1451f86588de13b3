"""`OneStepInference`: any NumPyro model in; draws, weights, evidence and a verdict out."""

from __future__ import annotations

import dataclasses
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.infer import MCMC, init_to_uniform
from tqdm.auto import tqdm

from numpyro_onestep.diagnostics import Verdict, judge
from numpyro_onestep.importance import (
    IMHChains,
    ess,
    evidence,
    imh_chains,
    resample_indices,
)
from numpyro_onestep.inference.checking import measure
from numpyro_onestep.inference.drawing import (
    OneStepDraws,
    WeightedDraws,
    chunk_size,
    plain_draws,
    rounding_error,
    weighted_draws,
)
from numpyro_onestep.inference.summary import format_summary
from numpyro_onestep.inference_data import build, check_names, merge_names, psis
from numpyro_onestep.target import Target, build_target
from numpyro_onestep.training import TrainedSampler, TrainingHistory, TrainingSettings, train

Posterior = Literal["imh", "resampled", "weighted"]
_POSTERIORS = ("imh", "resampled", "weighted")


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
            Metropolis-Hastings chains over the raw draws, exact in the limit, whose `r_hat` and
            `ess_bulk` tell the truth; "resampled": draws resampled by their Pareto-smoothed
            weights; "weighted": the raw draws as they are, for those who apply the weights
            themselves.
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
        if posterior not in _POSTERIORS:
            raise ValueError(f"expected posterior to be one of {_POSTERIORS}; got {posterior!r}")
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
        self._run: _Run | None = None

    @property
    def model(self) -> Callable[..., Any]:
        """The user's model."""
        return self.sampler.model

    # ArviZ reads the arguments of the last run under the names that they have in `MCMC`.
    @property
    def _args(self) -> tuple[Any, ...]:
        return self._run.args if self._run else ()

    @property
    def _kwargs(self) -> dict[str, Any]:
        return self._run.kwargs if self._run else {}

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
        self._check_names(target)
        with self._progress() as on_round:
            trained, history = train(
                target,
                key_train,
                self.settings,
                time_limit=self._time_limit,
                on_round=on_round,
            )
        sampled = time.perf_counter()
        run = self._finish(target, trained, history, key_draw, key_check)
        run.args, run.kwargs = args, kwargs
        run.seconds.update(
            train=history.seconds,
            sample=time.perf_counter() - sampled,
            total=time.perf_counter() - began,
        )
        run.result = self._build(run)
        # Only now: a run that fails leaves the last one as it was.
        self._run = run
        if run.verdict.label == "unreliable":
            warnings.warn(
                "the verdict on this run is 'unreliable': " + " ".join(run.verdict.reasons),
                stacklevel=2,
            )
        return run.result

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
        run = self._finished()
        _check_positive("num_samples", num_samples)
        num_steps = self.num_steps if num_steps is None else num_steps
        _check_positive("num_steps", num_steps)
        blocks = run.trained.flow.steps(run.trained.params, num_steps)
        if not weights:
            return OneStepDraws(plain_draws(run.target, run.trained, blocks, rng_key, num_samples))
        chunk = chunk_size(run.target.dim, self.settings.width, self.settings.num_points)
        draws, _ = weighted_draws(run.target, run.trained, blocks, rng_key, num_samples, chunk)
        _, pareto_k = psis(draws.log_weight)
        found = evidence(
            draws.log_weight,
            draws.sign,
            pareto_k=pareto_k,
            resolution=_resolution(draws, run.trained),
        )
        return OneStepDraws(run.target.constrain(draws.x), draws.log_weight, draws.sign, found)

    def get_samples(self, group_by_chain: bool = False) -> dict[str, jax.Array]:  # noqa: FBT001, FBT002
        """Draws of the posterior group: constrained sites and deterministics, as from `MCMC`.

        Returns:
            Arrays `(num_chains * num_samples, *event)`, or `(num_chains, num_samples, *event)`.
        """
        run = self._finished()
        return _posterior_samples(run, run.indices if group_by_chain else run.indices.reshape(-1))

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
        run = self._finished()
        print(format_summary(run.result, prob=prob))

    @property
    def verdict(self) -> Verdict:
        """Whether the run can be believed, with reasons."""
        return self._finished().verdict

    @property
    def inference_data(self) -> Any:
        """What `run` returned."""
        return self._finished().result

    @property
    def last_target(self) -> Target:
        """The model of the last run as a log-density in unconstrained coordinates."""
        return self._finished().target

    def _finished(self) -> _Run:
        if self._run is None:
            raise RuntimeError("expected a finished run: call `run` first")
        return self._run

    def _check_names(self, target: Target) -> None:
        """Fails on dims and coords that do not fit before any work is done."""
        shapes = jax.eval_shape(target.constrain_one, jnp.zeros(target.dim))
        names = merge_names(target.dims, target.coords, self._dims, self._coords)
        # The same groups as in the result; factors are observations without elements.
        observed = {name: v for name, v in target.observed_data.items() if v.size}
        for group in (shapes, observed, target.constant_data):
            check_names({name: leaf.shape for name, leaf in group.items()}, names)

    def _progress(self) -> _Progress:
        hidden = not self._progress_bar or bool(os.environ.get("CI"))
        return _Progress(self.settings.max_rounds + self.settings.num_annealing, disable=hidden)

    def _finish(
        self,
        target: Target,
        trained: TrainedSampler,
        history: TrainingHistory,
        key_draw: jax.Array,
        key_check: jax.Array,
    ) -> _Run:
        """Draws, weighs, judges and arranges."""
        num = self.num_chains * self.num_samples
        chunk = chunk_size(target.dim, self.settings.width, self.settings.num_points)
        blocks = trained.flow.steps(trained.params, self.num_steps)
        draws, first = weighted_draws(target, trained, blocks, key_draw, num, chunk)
        psis_log_weight, pareto_k = psis(draws.log_weight)
        resolution = _resolution(draws, trained)
        found = evidence(draws.log_weight, draws.sign, pareto_k=pareto_k, resolution=resolution)
        checks = measure(
            target,
            trained,
            history,
            draws,
            found,
            pareto_k,
            first,
            key_check,
            num_steps=self.num_steps,
            resolution=resolution,
        )
        seed = np.asarray(jax.random.key_data(key_check)).ravel().tolist()
        chains = _arrange(
            self._posterior,
            np.random.default_rng(seed),
            draws,
            psis_log_weight,
            self.num_chains,
            self.num_samples,
        )
        shown = target.evidence != "refused" and not history.diverged
        return _Run(
            target=target,
            trained=trained,
            history=history,
            draws=draws,
            samples=target.constrain(draws.x),
            indices=chains.indices,
            draw_stats={
                "lp": draws.log_density[chains.indices],
                "log_q": (draws.log_density - draws.log_weight)[chains.indices],
                "acceptance_rate": chains.acceptance_probability,
            },
            scalar_stats={
                "log_evidence": found.log_evidence if shown else math.nan,
                "log_evidence_se": found.se if shown else math.nan,
                "pareto_k": pareto_k,
                "ess_importance": ess(draws.log_weight, draws.sign).count,
            },
            psis_log_weight=psis_log_weight,
            verdict=judge(checks),
        )

    def _build(self, run: _Run) -> Any:
        target, draws, history = run.target, run.draws, run.history
        record = {
            "gradient_norm": ("training_step", np.asarray(history.losses)),
            "ess_fraction": ("round", np.asarray(history.ess_fraction)),
            "round_log_evidence": ("round", np.asarray(history.log_evidence)),
            "gaussian_elbo": ("gaussian_step", np.asarray(history.gaussian_elbo)),
            "num_rounds": len(history.ess_fraction),
            "num_target_gradients": history.num_gradients,
            **{f"seconds_{part}": value for part, value in run.seconds.items()},
        }
        return build(
            posterior={name: value[run.indices] for name, value in run.samples.items()},
            sample_stats={**run.draw_stats, **run.scalar_stats},
            importance=run.samples,
            importance_weights={
                "log_weight": draws.log_weight,
                "psis_log_weight": run.psis_log_weight,
                "log_det": draws.log_det,
                "sign": draws.sign,
            },
            training=record,
            names=merge_names(target.dims, target.coords, self._dims, self._coords),
            attrs={
                "numpyro_onestep_version": _version(),
                "numpyro_version": numpyro.__version__,
                "jax_version": jax.__version__,
                "verdict": run.verdict.label,
                "verdict_reasons": list(run.verdict.reasons),
                "evidence_note": target.evidence_note,
                "data_digest": target.digest,
                "num_steps": self.num_steps,
                "posterior_draws": self._posterior,
            },
            log_likelihood=self._pointwise(run),
            observed_data=target.observed_data,
            constant_data=target.constant_data,
        )

    def _pointwise(self, run: _Run) -> dict[str, np.ndarray] | None:
        """Pointwise log-likelihood of the posterior draws, where it is wanted and well-defined."""
        observed = sum(np.size(value) for value in run.target.observed_data.values())
        # Enumerated sites would be drawn at random, not summed out.
        if not self._log_likelihood or not observed or run.target.enumerates:
            return None
        if observed * run.indices.size > _MAX_LIKELIHOOD_VALUES:
            warnings.warn(
                f"the result holds no log_likelihood group: {observed} observations for "
                f"{run.indices.size} draws are too many; numpyro.infer.log_likelihood computes it "
                "for a part of them",
                stacklevel=3,
            )
            return None
        values = numpyro.infer.log_likelihood(
            self.model,
            _posterior_samples(run, run.indices.reshape(-1)),
            *run.args,
            **run.kwargs,
        )
        shape = run.indices.shape
        return {
            name: np.asarray(value).reshape((*shape, *value.shape[1:]))
            for name, value in values.items()
            if name in run.target.observed_data
        }


_MIN_DRAWS = 100
_MAX_LIKELIHOOD_VALUES = 50_000_000


@dataclasses.dataclass
class _Run:
    """Everything that a finished run leaves behind."""

    target: Target
    trained: TrainedSampler
    history: TrainingHistory
    draws: WeightedDraws
    samples: dict[str, np.ndarray]
    indices: np.ndarray
    draw_stats: dict[str, np.ndarray]
    scalar_stats: dict[str, float]
    psis_log_weight: np.ndarray
    verdict: Verdict
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    result: Any = None


def _posterior_samples(run: _Run, index: np.ndarray) -> dict[str, jax.Array]:
    return {name: jnp.asarray(value[index]) for name, value in run.samples.items()}


class _Progress:
    """A bar over the rounds of training, with what the last round found."""

    def __init__(self, total: int, *, disable: bool) -> None:
        self._bar = tqdm(total=total, disable=disable, desc="training", unit="round")

    def __enter__(self) -> Callable[[int, TrainingHistory], None]:
        return self._on_round

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def _on_round(self, _: int, history: TrainingHistory) -> None:
        self._bar.set_postfix(
            ess=f"{history.ess_fraction[-1]:.2f}",
            log_evidence=f"{history.log_evidence[-1]:.2f}",
            refresh=False,
        )
        self._bar.update()


def _arrange(
    posterior: Posterior,
    generator: np.random.Generator,
    draws: WeightedDraws,
    psis_log_weight: np.ndarray,
    num_chains: int,
    num_samples: int,
) -> IMHChains:
    """Which raw draw stands at each place of the posterior group."""
    shape = (num_chains, num_samples)
    if posterior == "imh":
        return imh_chains(
            generator,
            draws.log_weight,
            draws.sign,
            num_chains=num_chains,
            num_samples=num_samples,
        )
    if posterior == "resampled":
        unfolded = np.where(draws.sign > 0, psis_log_weight, -np.inf)
        indices = resample_indices(generator, unfolded, num_chains * num_samples)
        # Systematic resampling sorts; chains of sorted draws would look stuck.
        indices = generator.permutation(indices).reshape(shape)
    else:
        indices = np.arange(num_chains * num_samples).reshape(shape)
    return IMHChains(indices, np.ones(shape), np.ones(num_chains))


def _resolution(draws: WeightedDraws, trained: TrainedSampler) -> float:
    return rounding_error(draws.log_density, trained.affine.mean.dtype)


def _check_positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"expected {name} to be a positive int; got {value!r}")


def _version() -> str:
    from importlib.metadata import version

    return version("numpyro-onestep")
