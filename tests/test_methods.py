"""Methods of training by name: each runs, weighs exactly, and refuses what it cannot be."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from numpyro_onestep import flow as flows
from numpyro_onestep.flow import DiffusionFlow, TraceLogDet
from numpyro_onestep.importance import evidence
from numpyro_onestep.objectives import WarmUp
from numpyro_onestep.preconditioner import Affine, Density
from numpyro_onestep.target import build_target
from numpyro_onestep.training import CDDS, DDS, DIS, OSDS, PIS, SCDS, ResampleMove, draw, train
from numpyro_onestep.training.journal import CheckpointFile, Journal
from numpyro_onestep.training.moves import MovedPoints

SMALL = {
    "width": 8,
    "depth": 1,
    "num_frequencies": 2,
    "num_path_steps": 8,
    "num_starts": 1,
    "num_points": 500,
    "num_updates": 30,
    "batch_size": 32,
    "max_rounds": 2,
    "num_annealing": 1,
    "target_ess": 1.0,
}
TEACHER = DIS(**SMALL)
METHODS = {
    "OSDS": OSDS(**SMALL),
    "SCDS": SCDS(**SMALL),
    "CDDS": CDDS(**SMALL, teacher=TEACHER),
    "DIS": TEACHER,
    "PIS": PIS(**{**SMALL, "langevin": False}),
    "DDS": DDS(**{**SMALL, "prior_scale": 1.5}),
}


def banana():
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(0.3 * x**2, 0.5))


@pytest.fixture(scope="module")
def target():
    return build_target(jax.random.key(0), banana)


@pytest.mark.parametrize("name", METHODS)
def test_runs_and_weighs_exactly(target, name):
    method = METHODS[name]
    rounds = []
    sampler, history = train(
        target, jax.random.key(1), method, on_round=lambda i, _: rounds.append(i)
    )
    assert len(rounds) == method.num_rounds
    assert history.stopped == "" and not history.diverged
    assert np.all(np.isfinite(history.losses)) and np.abs(history.losses).max() > 0.0
    (sampler,) = sampler.components
    assert isinstance(sampler.flow, DiffusionFlow) == (method.num_sampling_steps > 1)
    steps = sampler.steps(target, method.num_sampling_steps)
    draws = draw(target, sampler.affine, steps, jax.random.key(2), 4000)
    found = evidence(draws.log_weight, draws.sign)
    # A normalised density: 4 standard errors, and an error that says something.
    assert abs(found.log_evidence) < 4.0 * found.se
    assert found.se < 0.25


def test_a_refit_that_needs_no_training_needs_no_teacher(target):
    method = METHODS["CDDS"]
    mixture, history = train(target, jax.random.key(1), method)
    content = dataclasses.replace(method, reuse_ess=0.1)
    again, refit = train(target, jax.random.key(2), content, warm=mixture)
    assert not refit.losses and len(refit.ess_fraction) == 2
    leaves = [jax.tree.leaves(m.components[0].params) for m in (mixture, again)]
    for old, new in zip(*leaves, strict=True):
        assert np.array_equal(old, new)
    teacher = TEACHER.num_rounds * TEACHER.num_updates * TEACHER.gradients_per_update
    assert history.num_gradients - refit.num_gradients > teacher


def test_a_student_goes_on_with_the_teacher_that_it_had(target, tmp_path):
    method = METHODS["CDDS"]
    mixture, history = train(target, jax.random.key(1), method)
    journal = Journal(CheckpointFile(tmp_path / "checkpoint", {}, {}))
    rounds = []

    def interrupt(i, _):
        rounds.append(i)
        if len(rounds) == TEACHER.num_rounds + 2:
            raise KeyboardInterrupt

    options = {"on_round": interrupt, "journal": journal}
    assert train(target, jax.random.key(1), method, **options)[1].stopped == "interrupted"
    again, resumed = train(target, jax.random.key(1), method, **options)
    assert len(rounds) == method.num_rounds + 1
    assert resumed.losses == history.losses and resumed.num_gradients == history.num_gradients
    leaves = [jax.tree.leaves(m.components[0].params) for m in (mixture, again)]
    for old, new in zip(*leaves, strict=True):
        assert np.array_equal(old, new)


def test_gradients_of_the_target_are_counted(target):
    _, history = train(target, jax.random.key(1), dataclasses.replace(TEACHER, langevin=False))
    _, with_gradient = train(target, jax.random.key(1), TEACHER)
    paths = 3 * 30 * 32 * (2 * 8 + 3)
    assert with_gradient.num_gradients - history.num_gradients == paths


def test_paths_start_as_far_out_as_the_spread_says(target):
    num, spread = 4000, 1.5
    affine = Affine(jnp.zeros(2), jnp.eye(2))
    starts = {}
    for method in (OSDS(**SMALL), PIS(**SMALL)):
        method = dataclasses.replace(method, batch_size=num, spread=spread)
        flow = method.flow(2)
        params = flow.init(jax.random.key(0))
        batch = method.batch(
            Density(target, affine), flow, params, params, None, None, 0, jax.random.key(1)
        )
        starts[type(method)] = np.asarray(batch.start)
    # 8000 normal numbers: five standard errors of their sd.
    assert abs(starts[OSDS].std() - spread) < 5.0 * spread / (2.0 * starts[OSDS].size) ** 0.5
    assert np.all(starts[PIS] == 0.0)


@pytest.mark.parametrize(("dim", "num_outer"), [(1, 0), (2, 0), (3, 2000), (8, 2000)])
def test_half_of_the_fresh_draws_are_further_out(dim, num_outer):
    def model():
        numpyro.sample("x", dist.StudentT(5.0, 0.0, 1.0).expand([dim]).to_event(1))

    method = ResampleMove(width=4, num_blocks=1, batch_size=4000)
    assert method.num_outer(dim) == num_outer
    density = Density(
        build_target(jax.random.key(0), model, ()), Affine(jnp.zeros(dim), jnp.eye(dim))
    )
    flow = method.flow(dim)
    params = flow.init(jax.random.key(0))
    one, none = jnp.zeros((1, dim)), jnp.zeros(1)
    points = MovedPoints(one, none, one, none, jnp.ones(()))
    scales = 1.0 + np.arange(2.0 * dim).reshape(2, dim)
    factors = jax.vmap(jnp.diag)(scales) if num_outer else None
    key = jax.random.key(1)
    batch = method.batch(density, flow, params, params, points, None, 0, key, factors)
    assert batch.base.shape == (4000 - num_outer, dim) and batch.outer.shape == (num_outer, dim)
    halves = jnp.split(batch.outer, 2)
    for z, sd in ((batch.base, np.ones(dim)), *zip(halves, scales, strict=True)):
        # Five standard errors of an sd.
        off = np.abs(np.asarray(z, float).std(0) / sd - 1.0) if len(z) else np.zeros(1)
        assert off.max() < 5.0 / (2.0 * max(len(z), 1)) ** 0.5
    image = jax.vmap(flows.apply, (None, 0))(flow.steps(params), batch.outer)
    np.testing.assert_allclose(batch.outer_score, jax.vmap(density.score)(image), rtol=1e-4)


@pytest.mark.parametrize("method", [OSDS, SCDS, CDDS])
def test_published_settings(method):
    published = method.published(prior_scale=2.0)
    assert published.prior_scale == 2.0 and not published.residual
    assert published.spread == 1.0
    assert published.num_path_steps == 128 and published.batch_size == 1024
    assert published.num_updates * published.max_rounds == 60_000
    schedule = published.schedule
    assert (schedule.beta_min, schedule.beta_max) == (0.01, 10.0)
    if method is OSDS:
        warm = [o for _, o in published.objectives if isinstance(o, WarmUp)]
        assert {o.num_updates for o in warm} == {2500} and published.ema == 0.999


@pytest.mark.slow
@pytest.mark.parametrize("method", [OSDS, SCDS, CDDS])
def test_published_settings_train_and_weigh_exactly(target, method):
    """A few small updates of the papers' form; their schedule, steps and coordinates stay."""
    sizes = {"batch_size": 8, "num_updates": 4, "max_rounds": 1, "num_points": 500}
    small = dataclasses.replace(method.published(prior_scale=1.2), **sizes)
    if method is CDDS:
        small = dataclasses.replace(small, teacher=dataclasses.replace(small.teacher, **sizes))
    mixture, history = train(target, jax.random.key(1), small)
    assert history.stopped == "" and not history.diverged
    assert np.all(np.isfinite(history.losses)) and np.abs(history.losses).max() > 0.0
    (sampler,) = mixture.components
    assert np.array_equal(sampler.affine.mean, np.zeros(2))
    steps = sampler.steps(target, small.num_sampling_steps)
    draws = draw(target, sampler.affine, steps, jax.random.key(2), 4000)
    found = evidence(draws.log_weight, draws.sign)
    # A normalised density: 4 standard errors, failing 1 seed in 16,000.
    assert abs(found.log_evidence) < 4.0 * found.se
    assert found.se < 0.25


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OSDS(num_path_steps=0), "expected num_path_steps to be a positive int; got 0"),
        (lambda: OSDS(prior_scale=-1.0), "expected a positive prior_scale or None; got -1.0"),
        (lambda: OSDS(spread=0.0), "expected a positive spread; got 0.0"),
        (lambda: SCDS(residual=False), "expected a schedule with a rate of the noise"),
        (lambda: SCDS(weight_decay=-0.1), "expected weight_decay >= 0; got -0.1"),
        (lambda: CDDS(teacher=PIS()), "expected a teacher with a probability flow"),
        (lambda: CDDS(teacher=ResampleMove()), "expected a teacher with a probability flow"),
        (lambda: ResampleMove(num_annealing=-1), "expected num_annealing to be a non-negative int"),
        (lambda: TraceLogDet(num_probes=0), "expected num_probes to be positive or None; got 0"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_methods_are_values():
    assert OSDS() == OSDS() and hash(OSDS()) == hash(OSDS())
    assert OSDS(width=32) != OSDS()


@pytest.mark.parametrize(
    "method", [ResampleMove(num_updates=1), METHODS["OSDS"]], ids=["default", "OSDS"]
)
def test_no_gradient_that_is_not_finite_moves_anything(target, method):
    """However many there are in a row: one that did would be the end of all parameters."""
    params = method.flow(2).init(jax.random.key(0))
    optimiser = method.optimiser()
    state = optimiser.init(params)
    spoiled = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), params)
    for _ in range(40):
        updates, state = optimiser.update(spoiled, state, params)
        assert all((np.asarray(leaf) == 0.0).all() for leaf in jax.tree.leaves(updates))
