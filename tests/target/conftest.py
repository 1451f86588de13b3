"""Small models, each compiled once: compile fast rather than to fast code."""

import jax
import pytest


@pytest.fixture(scope="package", autouse=True)
def compile_fast():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
