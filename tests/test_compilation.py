"""Programs that are compiled ahead: once, on another thread, and not without a core for it."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from numpyro_onestep import OneStepInference, ResampleMove, compilation
from numpyro_onestep.compilation import cancel, compiled
from numpyro_onestep.target import build_target


class Compilations(logging.Handler):
    """Names of the programs that XLA compiled, each with the thread that did it."""

    def __init__(self):
        super().__init__()
        self.found = []

    def emit(self, record):
        message = record.getMessage()
        if message.startswith("Finished XLA compilation of "):
            name = message.removeprefix("Finished XLA compilation of ").split(" in ")[0]
            self.found.append((name, threading.current_thread().name))

    def threads(self, name):
        """Of all compilations of a function."""
        return [thread for found, thread in self.found if found in (name, f"jit({name})")]


@pytest.fixture
def compilations():
    handler, logger = Compilations(), logging.getLogger("jax._src.dispatch")
    # The context manager of that name would leave other threads out.
    before = jax.config.jax_log_compiles
    jax.config.update("jax_log_compiles", True)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    jax.config.update("jax_log_compiles", before)


def cubes(x, n):
    return jnp.cumsum(x) ** n


SHAPE = jax.ShapeDtypeStruct((3,), jnp.float32)


def test_a_call_uses_what_was_compiled_ahead(compilations):
    function = compiled(static_argnames="n")(cubes)
    function.ahead(SHAPE, 3)
    assert function(jnp.ones(3), 3).tolist() == [1.0, 8.0, 27.0]
    (thread,) = compilations.threads("cubes")
    assert thread.startswith("numpyro_onestep")
    assert function.result_type(SHAPE, 3).shape == (3,)


def test_a_call_waits_for_its_own_program_only(monkeypatch):
    function, free = compiled(static_argnames="n")(cubes), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(compilation, "_pool", lambda: pool)
        busy = pool.submit(free.wait, 60.0)
        function.ahead(SHAPE, 2)
        assert function(jnp.ones(3), 1).tolist() == [1.0, 2.0, 3.0]
        assert not busy.done()
        free.set()
        assert function(jnp.ones(3), 2).tolist() == [1.0, 4.0, 9.0]


def test_inside_another_program_it_is_a_part_of_that(compilations):
    function = compiled(static_argnames="n")(cubes)
    twice = jax.jit(lambda x: 2.0 * function(x, n=3))
    assert twice(jnp.ones(3)).tolist() == [2.0, 16.0, 54.0]
    assert not compilations.threads("cubes")


def test_what_is_cancelled_is_compiled_when_it_is_called():
    function = compiled(static_argnames="n")(cubes)
    for n in range(5, 15):
        function.ahead(SHAPE, n)
    cancel()
    assert function(jnp.ones(3), 14).tolist() == [1.0, 2.0**14, 3.0**14]


def test_shapes_of_sites_are_found_without_compiling(compilations):
    def model(y, sigma):
        x = numpyro.sample("x", dist.HalfNormal(3.0))
        numpyro.sample("y", dist.Normal(x, sigma), obs=y)

    target = build_target(jax.random.key(0), model, (np.ones(7), np.ones(7)))
    compilations.found.clear()
    assert target.shapes["x"].shape == ()
    assert not compilations.found


@pytest.mark.parametrize("spare", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_training_calls_what_was_compiled_ahead(compilations, monkeypatch, spare):
    """Types and shapes are foretold: no large program is compiled twice, or when it is needed."""

    def model():
        x = numpyro.sample("x", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        numpyro.factor("bend", -((x[1] - x[0] ** 2) ** 2))

    monkeypatch.setattr(compilation, "has_spare_core", lambda: spare)
    # Other shapes than before: what was compiled for those serves no longer.
    method = ResampleMove(num_points=200 + 10 * spare, num_updates=5, max_rounds=1, num_annealing=1)
    OneStepInference(model, num_samples=100, method=method, progress_bar=False).run(
        jax.random.key(0)
    )
    counts = {"draw": 2, "move": 1, "improve": 1, "log_weight_at": 1, "begin": 1, "map_of": 2}
    for name, times in counts.items():
        threads = compilations.threads(name)
        assert len(threads) == times, name
        assert all(t.startswith("numpyro_onestep") == spare for t in threads), name


@pytest.mark.parametrize(
    "option, known",
    [
        ({"xla_backend_optimization_level": 0}, True),
        ({"xla_cpu_use_no_such_emitters": False}, False),
    ],
)
def test_an_option_that_xla_has_lost_is_left_out(monkeypatch, option, known):
    monkeypatch.setattr(compilation, "_OLDER", option)
    compilation._older.cache_clear()
    try:
        assert compilation._older() == (option if known else {})
        function = compiled(static_argnames="n", many_loops=True)(cubes)
        assert function(jnp.ones(3), 3).tolist() == [1.0, 8.0, 27.0]
    finally:
        compilation._older.cache_clear()


def test_programs_of_large_arguments_are_compiled_to_run():
    """Sums over many observations are where the quicker compilation costs most."""
    function = compiled(many_loops=True)(jnp.sum)
    shapes = [jax.ShapeDtypeStruct((size,), jnp.float32) for size in (10, 100, 2**19, 2**20)]
    small, also_small, large, also_large = (function._whole((shape,), {}) for shape in shapes)
    assert small is also_small
    assert large is also_large
    assert small is not large
