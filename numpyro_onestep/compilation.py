"""How the large programs are compiled: without costly optimisations, and ahead of their first use.

On a machine with a core to spare, another thread compiles while this one explores the posterior.
Tracing stays on the caller's thread, as NumPyro's handlers belong to one thread at a time.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# LLVM's first level: a quarter less time of compilation, and code that runs as fast.
_LIGHT = {"xla_backend_optimization_level": 1}
# XLA's older way to write loops, in JAX 0.10, not in 0.12: two fifths less time of compilation for
# programs of many loops. Those of a model with many observations may run several times as long.
_OLDER = {"xla_cpu_use_fusion_emitters": False}
# Size of an argument from which on the running of a program counts, not its compilation.
_LARGE = 2**19


class Compiled:
    """A function under `jax.jit`; inside another program it is a part of that.

    A call waits for the program that `ahead` has begun for arguments like its own.
    """

    def __init__(self, function: Callable[..., Any], *, many_loops: bool, **options: Any) -> None:
        """Takes whether calls spend their time in many small loops, and options of `jax.jit`."""
        functools.update_wrapper(self, function)
        self._function, self._options = function, options
        self._plain = jax.jit(function, **options)
        self._many_loops = many_loops
        self._begun: dict[Any, Future[Any]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function."""
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((args, kwargs))):
            # JAX has compiler's options for whole programs only.
            return self._plain(*args, **kwargs)
        if self._begun and (future := self._begun.get(_signature(args, kwargs))):
            wait([future])
        return self._whole(args, kwargs)(*args, **kwargs)

    def ahead(self, *args: Any, **kwargs: Any) -> None:
        """Begins to compile for arguments like these, of which only types and shapes matter.

        Worth it where there is a core to spare. Errors are left to the call.
        """
        lowered = self._whole(args, kwargs).lower(*args, **kwargs)
        signature = _signature(args, kwargs)
        future = self._begun[signature] = _pool().submit(lowered.compile)
        _begun.add(future)
        # What is done is kept by JAX; an entry here would keep it for ever.
        future.add_done_callback(_begun.discard)
        future.add_done_callback(lambda _: self._begun.pop(signature, None))

    def result_type(self, *args: Any, **kwargs: Any) -> Any:
        """Shapes and types of what a call returns, as `jax.eval_shape`."""
        return jax.eval_shape(self._plain, *args, **kwargs)

    def _whole(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        largest = max(map(np.size, jax.tree.leaves((args, kwargs))), default=0)
        # Whoever asks JAX for no optimisation at all means these programs too.
        light = not jax.config.read("jax_disable_most_optimizations")
        return self._program(light=light, older=self._many_loops and largest < _LARGE)

    @functools.cache  # noqa: B019 - instances are decorated functions.
    def _program(self, *, light: bool, older: bool) -> Any:
        options = (_LIGHT if light else {}) | (_older() if older else {})
        return jax.jit(self._function, compiler_options=options or None, **self._options)


def compiled(
    *, many_loops: bool = False, **options: Any
) -> Callable[[Callable[..., Any]], Compiled]:
    """A decorator with the options of `Compiled`."""
    return lambda function: Compiled(function, many_loops=many_loops, **options)


def cancel() -> None:
    """Forgets the programs that nobody has begun to compile: they are not needed after all."""
    for future in set(_begun):
        future.cancel()


def has_spare_core() -> bool:
    """Whether this process may run on more than one core."""
    # Where the operating system does not say which ones are ours, all are.
    affinity = getattr(os, "sched_getaffinity", None)
    return (len(affinity(0)) if affinity else os.cpu_count() or 1) > 1


def _signature(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What tells programs of one function apart: structure, shapes and types, static values."""
    leaves, structure = jax.tree.flatten((args, kwargs))
    return structure, tuple(
        (leaf.shape, leaf.dtype) if hasattr(leaf, "dtype") else leaf for leaf in leaves
    )


@functools.cache
def _older() -> dict[str, bool]:
    """The option, where XLA still has it."""
    try:
        jax.jit(jnp.negative, compiler_options=_OLDER).lower(np.zeros(())).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return _OLDER


_begun: set[Future[Any]] = set()


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="numpyro_onestep-compilation")
