"""What a finished inference can be asked: draws, weights, predictions, summaries, the verdict."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from numpyro.infer import MCMC
from numpyro.infer.reparam import NeuTraReparam

from numpyro_onestep.diagnostics import Verdict
from numpyro_onestep.importance import Estimate, allowing_for_missed, weighted_mean
from numpyro_onestep.inference.arguments import check_concrete, check_positive, required, typed_key
from numpyro_onestep.inference.diagnosis import Diagnosis, diagnose
from numpyro_onestep.inference.drawing import (
    OneStepDraws,
    plain_draws,
    ready,
    weigh,
    weighted_draws,
)
from numpyro_onestep.inference.neutra import neutra_reparam
from numpyro_onestep.inference.predictive import (
    posterior_predictive_groups,
    prediction_groups,
)
from numpyro_onestep.inference.run import Fit, Run
from numpyro_onestep.inference.sensitivity import log_prior_groups, power_log_ratio
from numpyro_onestep.inference.summary import format_summary
from numpyro_onestep.inference_data import AxisNames, add_groups, merge_names, weighted_summary
from numpyro_onestep.target import Target

EXTRA_FIELDS = ("potential_energy", "lp", "log_q", "acceptance_rate")
"""What `get_extra_fields` returns."""


class Finished(MCMC):
    """The half of `OneStepInference` that reads a run; the other half makes one."""

    sampler: Any
    num_steps: int
    _coords: dict[str, Any]
    _dims: dict[str, Any]
    _fallback: Literal["nuts"] | None
    _fit: Fit | None
    _run: Run | None
    _result: Any

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

    def sample(
        self,
        rng_key: jax.Array,
        num_samples: int,
        *,
        num_steps: int | None = None,
        weights: bool = True,
    ) -> OneStepDraws:
        """New independent draws from the trained sampler: no training, one evaluation per step.

        After a rescue by NUTS these are still the sampler's own draws, whose weights failed the
        checks; a warning says so.

        Args:
            rng_key: a key that was not used for another call.
            num_samples: number of draws, `n`.
            num_steps: steps per draw; by default those of the run.
            weights: whether to compute the exact weights, and the evidence from them.

        Returns:
            Samples `(n, *event)` with log-weights `(n,)`.

        Raises:
            RuntimeError: before `run`.
            ValueError: for sizes below one, or what is not one key.
        """
        fit = required(self._fit)
        check_concrete("sample", rng_key)
        rng_key = typed_key(rng_key)
        check_positive("num_samples", num_samples)
        self._warn_of_weights()
        num_steps = self.num_steps if num_steps is None else num_steps
        check_positive("num_steps", num_steps)
        parts = ready(fit.target, fit.trained, num_steps)
        if not weights:
            coordinates = fit.trained.coordinates(fit.target)
            samples = plain_draws(coordinates, parts, rng_key, num_samples)
            return OneStepDraws(samples)
        draws, _ = weighted_draws(parts, rng_key, num_samples, fit.chunk)
        found = weigh(draws).evidence
        if self._run is not None:
            # More draws do not reach what those of the run did not.
            found = allowing_for_missed(found, self._run.scalar_stats["missed_share"])
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
        self._warn_of_weights()
        log_weight = np.where(run.draws.sign > 0, run.draws.log_weight, -np.inf)
        return {name: jnp.asarray(value) for name, value in run.samples.items()}, log_weight

    def get_extra_fields(self, group_by_chain: bool = False) -> dict[str, np.ndarray]:  # noqa: FBT001, FBT002
        """Statistics of the posterior draws, as from `MCMC`.

        Returns:
            `lp`, the log joint density in unconstrained coordinates, `potential_energy = -lp`,
            `log_q`, the log-density of the sampler, and `acceptance_rate`, in the shapes of
            `get_samples`.
        """
        stats = self._finished().draw_stats
        # ArviZ stores this as `lp` when it converts a sampler: the true one comes after it.
        stats = {"potential_energy": -stats["lp"], **stats}
        if group_by_chain:
            return stats
        return {name: value.reshape(-1) for name, value in stats.items()}

    def sample_posterior_predictive(self, rng_key: jax.Array) -> Any:
        """Draws new observations for every draw of the posterior, into the result.

        Discrete latent sites, which are summed out otherwise, are drawn given the data first. A
        series that feeds itself inside `scan` is simulated anew from its start. Warns where draws
        are given the observed values, as in an autoregression on the data.

        Args:
            rng_key: a typed or a legacy key.

        Returns:
            The result, `inference_data`, which now holds the group `posterior_predictive`, dims
            (chain, draw, ...), in place of an older one.

        Raises:
            RuntimeError: before `run`.
            ValueError: for a model without observed sites.
            NotImplementedError: for discrete latent sites that NumPyro cannot draw given the data,
                as inside `scan`; `predict` draws them from the model.
        """
        run = self._finished()
        names, rng_key = self._names(run.fit.target), typed_key(rng_key)
        groups = posterior_predictive_groups(run, names, rng_key)
        add_groups(self.inference_data, groups)
        return self.inference_data

    def predict(self, rng_key: jax.Array, *args: Any, **kwargs: Any) -> Any:
        """Draws observations under other arguments of the model, into the result.

        Args:
            rng_key: a typed or a legacy key.
            *args: arguments of the model, of any shape that the latent sites allow. Observed values
                among them are left aside.
            **kwargs: keyword arguments of the model.

        Returns:
            The result, `inference_data`, which now holds the group `predictions`, dims (chain,
            draw, ...), and `predictions_constant_data`, the arrays among the arguments, in place
            of older ones. Axes keep their labels where their lengths are those of the fit.

        Raises:
            RuntimeError: before `run`.
            ValueError: for a model without observed sites.
        """
        run = self._finished()
        names, rng_key = self._names(run.fit.target), typed_key(rng_key)
        add_groups(self.inference_data, prediction_groups(run, names, rng_key, (args, kwargs)))
        return self.inference_data

    def neutra(self) -> NeuTraReparam:
        """The trained map as a reparametrisation of the model, for NUTS in its coordinates.

        NumPyro's `NeuTraReparam`, which otherwise takes a trained guide. Where the map folds, so
        that it is no change of coordinates, and for a stochastic sampler, the Gaussian fit takes
        its place.

        Raises:
            RuntimeError: before `run`.
            ValueError: where the sampler has a component for each of several modes.

        Example:
            >>> neutra = inference.neutra()
            >>> mcmc = MCMC(NUTS(neutra.reparam(model)), num_warmup=300, num_samples=1000)
            >>> mcmc.run(rng_key, *args)  # the arguments of `inference.run`
            >>> mcmc.get_samples()  # the model's sites, and `auto_shared_latent`
        """
        return neutra_reparam(self._finished(), self.num_steps)

    def compute_log_prior(self) -> Any:
        """Puts the log-density of every latent site's prior into the result.

        That is what ArviZ's power-scaling diagnostics read, beside the group `log_likelihood`:
        `arviz.psens` on 0.23, `arviz.psense_summary` on 1.x.

        Returns:
            The result, `inference_data`, which now holds the group `log_prior`, dims (chain, draw).

        Raises:
            RuntimeError: before `run`.
            ValueError: for a model with discrete latent sites.
        """
        add_groups(self.inference_data, log_prior_groups(self._finished()))
        return self.inference_data

    def weighted_summary(
        self,
        var_names: Sequence[str] | None = None,
        *,
        prob: float = 0.9,
        prior_power: float = 1.0,
        likelihood_power: float = 1.0,
    ) -> pd.DataFrame:
        """Mean, sd, median and central `prob` interval from the raw weighted draws.

        Every number is followed by its Monte Carlo standard error, `mcse`. No chain, no
        resampling: the most precise summary that the run allows.

        Args:
            var_names: sites; all by default.
            prob: probability of the interval.
            prior_power: of the prior of all latent sites, for its influence: the summary is that
                of the posterior under `p(theta)^prior_power`. Warns where that is too far away.
            likelihood_power: of the likelihood of all observed sites, factors left out.

        Returns:
            A table with one row per scalar.

        Raises:
            ValueError: for unknown sites, or where the weight of a draw is NaN or +inf.
        """
        self._warn_of_weights()
        ratio = power_log_ratio(self._finished(), prior_power, likelihood_power)
        return weighted_summary(self.inference_data, var_names, prob=prob, log_ratio=ratio)

    def expectation(self, function: Callable[[dict[str, Any]], Any]) -> Estimate:
        """Posterior mean of any function of the sites, with its Monte Carlo standard error.

        Args:
            function: takes the sites of all raw draws, `(n, *event)` by name, and returns an array
                of one value per draw, `(n, *shape)`.

        Returns:
            `value` and `mcse`, both of that shape.

        Raises:
            ValueError: if the function returns another number of values, or where the weight of a
                draw is NaN or +inf.

        Example:
            >>> inference.expectation(lambda sites: sites["tau"] > 5.0).value
        """
        run = self._finished()
        self._warn_of_weights()
        values = np.asarray(function(dict(run.samples)))
        return weighted_mean(values, run.draws.log_weight, run.draws.sign)

    def print_summary(self, prob: float = 0.9, exclude_deterministic: bool = False) -> None:  # noqa: FBT001, FBT002
        """Prints the table of the posterior, the evidence, the weights and the verdict.

        Args:
            prob: probability of the central interval.
            exclude_deterministic: whether to leave out sites that follow from others.
        """
        shown = list(self._finished().fit.target.site_slices) if exclude_deterministic else None
        print(format_summary(self.inference_data, prob=prob, var_names=shown))

    def diagnose(self) -> Diagnosis:
        """What is wrong with the run, where, and what to do, in plain sentences.

        Returns:
            A text that prints: the verdict with its reasons, the sites in which the largest weights
            lie apart, how far exploration and moved points could see, and what the run took. Its
            `sections` are pairs of a heading and sentences.

        Example:
            >>> print(inference.diagnose())
        """
        return diagnose(self._finished(), had_fallback=self._fallback is not None)

    @property
    def verdict(self) -> Verdict:
        """Whether the run can be believed, with reasons."""
        return self._finished().verdict

    @property
    def inference_data(self) -> Any:
        """What `run` returned."""
        return required(self._result)

    @property
    def last_target(self) -> Target:
        """The model of the last run as a log-density in unconstrained coordinates."""
        return self._finished().fit.target

    def _warn_of_weights(self) -> None:
        if self._run is not None and self._run.rescue is not None:
            warnings.warn(
                "this is from draws of the one-step sampler, whose weights failed the checks; the"
                " draws of NUTS that took their place are those of `get_samples`",
                stacklevel=3,  # the caller of the public method
            )

    def _finished(self) -> Run:
        return required(self._run)

    def _names(self, target: Target) -> AxisNames:
        return merge_names(target.dims, target.coords, self._dims, self._coords)
