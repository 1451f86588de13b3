"""`OneStepInference`: any NumPyro model in; draws, weights, evidence and a verdict out."""

from __future__ import annotations

import functools
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Self

import jax
from numpyro.infer import init_to_uniform

from numpyro_onestep.flow import TraceLogDet
from numpyro_onestep.inference.arguments import check_concrete, check_positive, required, typed_key
from numpyro_onestep.inference.checkpoint import open_checkpoint
from numpyro_onestep.inference.drawing import chunk_size
from numpyro_onestep.inference.few_steps import finish_in_enough_steps
from numpyro_onestep.inference.finished import EXTRA_FIELDS, Finished
from numpyro_onestep.inference.predictive import prior_groups
from numpyro_onestep.inference.progress import Progress
from numpyro_onestep.inference.rescue import FALLBACKS, Fallback, rescue
from numpyro_onestep.inference.result import check_axis_names, to_inference_data
from numpyro_onestep.inference.run import POSTERIORS, Fit, Posterior, Run, finish, num_evaluations
from numpyro_onestep.inference.saving import load_state, save_state
from numpyro_onestep.inference_data import add_groups, wrap_groups
from numpyro_onestep.target import Target, build_target
from numpyro_onestep.training import (
    NO_JOURNAL,
    Journal,
    Method,
    ResampleMove,
    TrainedMixture,
    train,
)


class OneStepInference(Finished):
    """Posterior inference for a NumPyro model with a one-step diffusion sampler.

    A drop-in for `MCMC(NUTS(model))` that also returns the evidence `log p(y)` with an error and a
    verdict on itself. It is a subclass for those who ask, such as `arviz.from_numpyro` from ArviZ
    1.3 on; there is no warm-up and no state of a chain.

    Args:
        model: a NumPyro model; continuous latent sites, finite discrete ones are summed out.
        num_samples: draws per chain.
        num_chains: chains of the posterior group.
        num_steps: steps of the sampler per draw; 1 is the fastest, more can be more accurate. By
            default the method's own number, 1, or a whole path for a multi-step sampler; where the
            verdict on these draws is not `reliable` and more of those in twice as many steps are
            effective, 2, 4, 8 or 16 times as many, where the verdict gets no graver by it (and, if
            it was `unreliable`, becomes `reliable`), and the verdict says so.
        posterior: what the equally weighted draws of the posterior group are. "imh": independence
            Metropolis-Hastings chains over the raw draws, four to a draw, exact in the limit, whose
            `r_hat` and `ess_bulk` show uneven weights; "resampled": as many raw draws resampled by
            their Pareto-smoothed weights; "weighted": the raw draws as they are, for those who
            apply the weights themselves.
        init_strategy: where the Gaussian fit starts, as for NUTS.
        method: how the sampler is trained, with everything that can be configured about it;
            `ResampleMove()` by default.
        fallback: what takes over where the verdict on the weighted draws is "unreliable". None: the
            run stays refused. "nuts": NumPyro's NUTS in the coordinates of the trained map, from
            independent starts, and the evidence by a bridge to the one-step draws; where its own
            checks pass, the posterior group holds its draws and the verdict is "rescued". Separate
            modes are left alone.
        target_ess: how many independent draws the raw draws are to be worth altogether (Kish's
            effective sample size). Draws are added in batches until they are, 16 times the usual
            number at the most; a note in the verdict says where that was not enough. None for the
            usual number.
        time_limit: seconds for the whole run. Exploration and training end with what they have,
            draws beyond the first batch and the fallback with nothing, and the verdict says that
            they were stopped early. The first batch of draws and the checks are always made;
            training leaves time for them, as far as its rounds tell how much. None for no limit.
        checkpoint: a file for what training has done so far, written every half minute, and when
            an error, Ctrl-C or the time limit ends it. If it exists, `run` goes on from there to
            the result that it would have had at once; it must be of the same model, data, key and
            method, while all options of the draws may change. A run that comes to its end removes
            it. None for no file.
        progress_bar: a bar over training rounds; always off where the variable `CI` is set.
        coords: coordinates by dimension, for ArviZ.
        dims: names of the dimensions by site, for ArviZ; plates name theirs already.
        log_likelihood: whether the result holds the pointwise log-likelihood, for `az.loo`.
        trace_weights: asks for the published deterministic-flow weights too, stored as
            `trace_log_weight` and `trace_log_evidence`, for comparison: they are biased.

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
        num_steps: int | None = None,
        posterior: Posterior = "imh",
        init_strategy: Callable[..., Any] = init_to_uniform,
        method: Method | None = None,
        fallback: Fallback | None = None,
        target_ess: float | None = None,
        time_limit: float | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        progress_bar: bool = True,
        coords: Mapping[str, Sequence[Any]] | None = None,
        dims: Mapping[str, Sequence[str]] | None = None,
        log_likelihood: bool = True,
        trace_weights: TraceLogDet | None = None,
    ) -> None:
        """See the class."""
        # Not MCMC's own __init__: there is no kernel to set up.
        if not callable(model):
            raise ValueError(f"expected a NumPyro model, the function itself; got {model!r}")
        check_positive("num_samples", num_samples)
        check_positive("num_chains", num_chains)
        method = ResampleMove() if method is None else method
        if not isinstance(method, Method):
            raise ValueError(f"expected a method such as ResampleMove(); got {method!r}")
        self._adds_steps = num_steps is None
        num_steps = method.num_sampling_steps if num_steps is None else num_steps
        check_positive("num_steps", num_steps)
        if num_samples * num_chains < _MIN_DRAWS:
            raise ValueError(
                f"expected num_samples * num_chains >= {_MIN_DRAWS}, too few draws for weights "
                f"and their diagnostics otherwise; got {num_samples} * {num_chains}"
            )
        if posterior not in POSTERIORS:
            raise ValueError(f"expected posterior to be one of {POSTERIORS}; got {posterior!r}")
        if fallback not in (*FALLBACKS, None):
            raise ValueError(
                f"expected fallback to be one of {FALLBACKS} or None; got {fallback!r}"
            )
        if trace_weights is not None and method.num_sampling_steps > 1:
            raise ValueError(
                f"expected no trace_weights for a stochastic sampler; got {trace_weights!r}"
            )
        if target_ess is not None and not 0.0 < target_ess < math.inf:
            raise ValueError(
                f"expected a positive target_ess, a number of draws; got {target_ess!r}"
            )
        if time_limit is not None and not time_limit > 0:
            raise ValueError(f"expected a positive time_limit in seconds; got {time_limit!r}")
        self.num_samples = num_samples
        self.num_chains = num_chains
        self.num_steps = num_steps
        self.method = method
        self.sampler = SimpleNamespace(model=model)
        self._posterior = posterior
        self._trace_weights = trace_weights
        self._init_strategy = init_strategy
        self._fallback = fallback
        self._target_ess = target_ess
        self._time_limit = time_limit
        self._checkpoint = checkpoint
        self._progress_bar = progress_bar
        self._coords = dict(coords or {})
        self._dims = dict(dims or {})
        self._log_likelihood = log_likelihood
        self._fit: Fit | None = None
        self._run: Run | None = None
        self._result: Any = None

    def run(
        self, rng_key: jax.Array, *args: Any, extra_fields: Sequence[str] = (), **kwargs: Any
    ) -> Any:
        """Trains a sampler for the model with these arguments and draws from it.

        Args:
            rng_key: a typed or a legacy key; the result is a function of it.
            *args: arguments of the model.
            extra_fields: as of `MCMC.run`, for scripts that ask for `potential_energy` there:
                `get_extra_fields` returns all that there is in any case.
            **kwargs: keyword arguments of the model.

        Returns:
            `InferenceData` (ArviZ 0.23) or `xarray.DataTree` (1.x) with the groups posterior,
            sample_stats, importance, training, observed_data and, where they exist, constant_data
            and log_likelihood.

        Raises:
            ValueError: for a model or data that cannot be sampled, naming the site; for a field
                that only a Markov chain has, such as `diverging`; for a checkpoint of another run,
                or a damaged one.
            TypeError: inside `jax.jit` or `jax.vmap`.
        """
        began = time.perf_counter()
        check_concrete("run", rng_key, args, kwargs)
        rng_key = typed_key(rng_key)
        unknown = sorted({*extra_fields} - {*EXTRA_FIELDS})
        if unknown:
            raise ValueError(f"expected extra_fields out of {EXTRA_FIELDS}; got {unknown}")
        target = self._build_target(rng_key, args, kwargs)
        if self._checkpoint is None:
            return self._complete(rng_key, target, args, kwargs, began)
        strategy = self._init_strategy
        with open_checkpoint(self._checkpoint, target, rng_key, self.method, strategy) as file:
            result = self._complete(rng_key, target, args, kwargs, began, journal=Journal(file))
            if required(self._fit).history.stopped:
                file.write()
            else:
                file.remove()
        return result

    def refit(self, rng_key: jax.Array, *args: Any, **kwargs: Any) -> Any:
        """Fits the trained sampler to new data of the same shapes, and draws from it.

        Nothing is compiled again, and training starts from where it ended; where two sets of draws
        reach the method's `reuse_ess` as they are, and no tail of weights is heavy, there is none.
        Everything else is as in `run`, the exploration, the checks and the verdict included: a
        sampler that does not carry over to the new data says so.

        Args:
            rng_key: a typed or a legacy key.
            *args: arguments of the model, of the structure, shapes and types of the last ones.
            **kwargs: keyword arguments of the model, likewise.

        Returns:
            As `run`.

        Raises:
            RuntimeError: before `run`.
            ValueError: for arguments of other shapes or types, or that differ where the model
                needs constants (sizes, switches); those are for `run`.
        """
        began = time.perf_counter()
        check_concrete("refit", rng_key, args, kwargs)
        rng_key = typed_key(rng_key)
        fit = required(self._fit)
        target = fit.target.with_data(*args, **kwargs)
        return self._complete(rng_key, target, args, kwargs, began, warm=fit.trained)

    def _build_target(
        self, rng_key: jax.Array, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Target:
        key = jax.random.fold_in(rng_key, 0)
        return build_target(key, self.model, args, kwargs, init_strategy=self._init_strategy)

    def _complete(
        self,
        rng_key: jax.Array,
        target: Target,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        began: float,
        *,
        journal: Journal = NO_JOURNAL,
        warm: TrainedMixture | None = None,
    ) -> Any:
        """Trains, draws, judges and keeps what comes out."""
        # Folded keys: adding a use later does not change the numbers of the others.
        key_train, key_draw, key_check, key_rescue = (
            jax.random.fold_in(rng_key, i) for i in (1, 2, 3, 4)
        )
        names = self._names(target)
        check_axis_names(target, names)
        rounds = self.method.num_rounds
        deadline = began + (math.inf if self._time_limit is None else self._time_limit)
        chunk = chunk_size(target.dim, self.method.chunk_width, self.method.num_points)
        num_after = num_evaluations(self.num_chains, self.num_samples, self._posterior, chunk)
        with Progress(rounds, shown=self._progress_bar) as on_round:
            trained, history = train(
                target,
                key_train,
                self.method,
                time_limit=None if self._time_limit is None else deadline - time.perf_counter(),
                num_after=num_after,
                on_round=on_round,
                journal=journal,
                warm=warm,
            )
        sampled = time.perf_counter()
        fit = Fit(trained.in_precision(target), trained, history, chunk, args, kwargs)
        finish_in = functools.partial(
            finish,
            fit,
            key_draw,
            key_check,
            num_chains=self.num_chains,
            num_samples=self.num_samples,
            posterior=self._posterior,
            trace_weights=self._trace_weights,
            target_ess=self._target_ess or 0.0,
            deadline=deadline,
        )
        num_steps = self.method.num_sampling_steps if self._adds_steps else self.num_steps
        try:
            if self._adds_steps:
                run, num_steps = finish_in_enough_steps(finish_in, num_steps, deadline)
            else:
                run = finish_in(num_steps)
        except KeyboardInterrupt:
            # What took long is kept: `sample` works.
            self._fit, self._run, self._result = fit, None, None
            self.num_steps = num_steps
            raise
        checked = time.perf_counter()
        if self._fallback == "nuts":
            run = rescue(
                run,
                key_rescue,
                num_chains=self.num_chains,
                num_steps=num_steps,
                deadline=deadline,
            )
        ended = time.perf_counter()
        result = to_inference_data(
            run,
            names,
            num_steps=num_steps,
            posterior=self._posterior,
            seconds={
                "train": history.seconds,
                "sample": checked - sampled,
                "rescue": ended - checked,
                "total": ended - began,
            },
            log_likelihood=self._log_likelihood,
        )
        # Only now: a run that fails leaves the last one as it was.
        self._fit, self._run, self._result = fit, run, result
        self.num_steps = num_steps
        if run.verdict.label == "unreliable":
            warnings.warn(
                "the verdict on this run is 'unreliable': " + " ".join(run.verdict.reasons),
                stacklevel=3,  # the caller of `run` or `refit`
            )
        return result

    def sample_prior(
        self, rng_key: jax.Array, *args: Any, num_samples: int = 1000, **kwargs: Any
    ) -> Any:
        """Draws all sites from the prior, observed values left aside: for prior checks.

        Warns where draws are given the observed values all the same, as in an autoregression on the
        data.

        Args:
            rng_key: a typed or a legacy key.
            *args: arguments of the model, before `run` or for others than its own.
            num_samples: number of draws.
            **kwargs: keyword arguments of the model.

        Returns:
            With arguments, a result of the groups `prior` (latent and deterministic sites) and
            `prior_predictive` (observed ones), one chain of draws. Without, the result of the run,
            which now holds these groups.

        Raises:
            RuntimeError: without arguments before `run`.
            ValueError: for `num_samples` below one, or a model that cannot be sampled.
            NotImplementedError: NumPyro's own, for a site without a proper prior.
        """
        check_positive("num_samples", num_samples)
        rng_key = typed_key(rng_key)
        if args or kwargs:
            target = self._build_target(rng_key, args, kwargs)
            groups = prior_groups(target, self._names(target), rng_key, num_samples)
            return wrap_groups(groups, {})
        target = required(self._fit).target
        groups = prior_groups(target, self._names(target), rng_key, num_samples)
        add_groups(self.inference_data, groups)
        return self.inference_data

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the trained sampler and the result to one portable file, without pickle.

        The file is a zip archive of a JSON header and NumPy arrays: the sampler, the options, the
        groups of the result and, where they are arrays, numbers and text, the arguments of the
        run. It takes the place of an existing one only when it is complete.

        Raises:
            RuntimeError: before `run`.
            ValueError: for an option that no such file can hold, naming it.
            OSError: where the file cannot be written; an existing one is then untouched.
        """
        required(self._fit)
        save_state(path, vars(self))

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], model: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Self:
        """The inference that `save` wrote, with its sampler and its result: no training.

        The same key then gives the same draws. Nothing in the file is executed: the code is that
        of `model`, and the file is checked against it.

        Args:
            path: of the file.
            model: the model that was fitted.
            *args: arguments of the model, as for `run`; only where the file could not hold them.
            **kwargs: keyword arguments of the model.

        Raises:
            FileNotFoundError: without such a file.
            ValueError: for a file that is damaged, of another kind, or of another format version;
                for a model or data other than those of the run; without arguments that the file
                could not hold; in another floating-point precision.
        """
        inference = cls(model)
        inference.__dict__.update(load_state(path, model, (args, kwargs), vars(inference)))
        return inference


_MIN_DRAWS = 100
