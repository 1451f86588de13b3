"""From a NumPyro model and its arguments to a `Target`."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer import init_to_uniform
from numpyro.infer.util import initialize_model

from numpyro_onestep.compilation import compiled
from numpyro_onestep.target.arguments import (
    Arguments,
    check_representable,
    is_array,
    is_floating_array,
    is_nothing,
    split_arguments,
)
from numpyro_onestep.target.base import Target
from numpyro_onestep.target.loc_scale import Replaceable, replaceable_sites
from numpyro_onestep.target.metadata import plate_dims
from numpyro_onestep.target.normalisation import influential_parameters
from numpyro_onestep.target.program import Model, Program, float_dtype
from numpyro_onestep.target.traces import Site, Trace, is_continuous, is_discrete

# What may travel as data, in order of preference. Index arrays often fix sizes
# (`len(np.unique(group))`) and must then stay constants, while the measurements need not.
_SELECTIONS = (is_array, is_floating_array, is_nothing)


def build_target(
    rng_key: jax.Array,
    model: Model,
    model_args: tuple[Any, ...] = (),
    model_kwargs: dict[str, Any] | None = None,
    *,
    init_strategy: Callable[..., Any] = init_to_uniform,
) -> Target:
    """Build the target of a model given its arguments, and check that it can be started.

    Args:
        rng_key: key for initial values; typed or legacy.
        model: callable with NumPyro primitives, handlers included.
        model_args: its positional arguments.
        model_kwargs: its keyword arguments.
        init_strategy: a strategy of NumPyro, or a partial form of one.

    Returns:
        The target. Array-valued arguments are its data leaves if the model can be traced with
        abstract arrays; otherwise they are constants of its program.

    Raises:
        ValueError: without a continuous latent site, with a subsampled plate, if no initial
            point has a finite density and gradient (the message names the site), or for an array
            whose values single precision cannot hold (the message names the argument).
        RuntimeError: NumPyro's own, for discrete latent sites without enumerable support.
        ImportError: for finite discrete latent sites without funsor.
    """
    arguments: Arguments = (tuple(model_args), dict(model_kwargs or {}))
    check_representable(model, arguments)
    layout_key, numpyro_key, point_key = (jax.random.fold_in(rng_key, i) for i in range(3))
    abstract_trace = functools.partial(_abstract_trace, layout_key, model, arguments, init_strategy)
    abstract_trace(_check_sites)
    _check_with_numpyro(numpyro_key, model, arguments, init_strategy)
    program = abstract_trace(lambda trace: _program(trace, model, arguments, init_strategy))
    if abstract_trace(_site_types) & {"param", "mutable"}:
        fixed = _parameters(layout_key, model, arguments, init_strategy)
        program = dataclasses.replace(program, fixed=fixed)
        program = dataclasses.replace(program, held=influential_parameters(program))
    program = dataclasses.replace(program, **_replaceable(program, layout_key)._asdict())
    return _trace_abstractly(program, arguments, point_key).classified()


def _abstract_trace(
    rng_key: jax.Array,
    model: Model,
    arguments: Arguments,
    init_strategy: Callable[..., Any],
    read: Callable[[Trace], Any],
) -> Any:
    """What `read` makes of the model's trace with abstract values: nothing is computed."""
    results: list[Any] = []

    def trace(key: jax.Array) -> None:
        results.append(read(_seeded_trace(key, model, arguments, init_strategy)))

    jax.eval_shape(trace, rng_key)
    return results[0]


def _seeded_trace(
    rng_key: jax.Array, model: Model, arguments: Arguments, init_strategy: Callable[..., Any]
) -> Trace:
    args, kwargs = arguments
    seeded = handlers.substitute(handlers.seed(model, rng_key), substitute_fn=init_strategy)
    tracer = handlers.trace(seeded)
    try:
        return tracer.get_trace(*args, **kwargs)
    except ValueError as error:
        if "distribution got invalid" not in str(error):
            raise
        # NumPyro refuses a parameter before it knows the site: name the next one.
        with numpyro.validation_enabled(is_validate=False):
            sites = handlers.trace(seeded).get_trace(*args, **kwargs)
        for name, site in sites.items():
            if is_continuous(site) and not _may_lie_in_support(site):
                raise ValueError(
                    f"the initial value of site '{name}' is not inside its support"
                ) from error
        name = list(sites)[len(tracer.trace)]
        raise ValueError(f"site '{name}': {str(error).splitlines()[0]}") from error


def _may_lie_in_support(site: Site) -> bool:
    """Whether an initial value is in its support, as far as it is known (not if it is random)."""
    inside = site["fn"].support(site["value"])
    return isinstance(inside, jax.core.Tracer) or bool(np.all(inside))


def _site_types(trace: Trace) -> set[str]:
    return {site["type"] for site in trace.values()}


def _parameters(
    rng_key: jax.Array, model: Model, arguments: Arguments, init_strategy: Callable[..., Any]
) -> dict[str, Any]:
    """Initial values of the parameters and mutable states."""
    trace = _seeded_trace(rng_key, model, arguments, init_strategy)
    return {n: site["value"] for n, site in trace.items() if site["type"] in ("param", "mutable")}


def _program(
    trace: Trace, model: Model, arguments: Arguments, init_strategy: Callable[..., Any]
) -> Program:
    unconstrained, constrained = {}, {}
    for name in sorted(name for name, site in trace.items() if is_continuous(site)):
        fn, value = trace[name]["fn"], trace[name]["value"]
        constrained[name] = jnp.shape(value)
        unconstrained[name] = jnp.shape(biject_to(fn.support).inv(value))
    frames = [
        frame
        for site in trace.values()
        if site["type"] == "sample"
        for frame in site["cond_indep_stack"]
    ]
    nesting = max((-frame.dim for frame in frames), default=0)
    dims, plate_sizes = plate_dims(trace)
    return Program(
        model=model,
        init_strategy=init_strategy,
        skeleton=arguments,
        fixed={},
        enumerate_dim=-nesting - 1 if any(map(is_discrete, trace.values())) else None,
        unconstrained_shapes=unconstrained,
        constrained_shapes=constrained,
        dims=dims,
        plate_sizes=plate_sizes,
        held=(),
    )


def _replaceable(program: Program, rng_key: jax.Array) -> Replaceable:
    """Sites that can have other coordinates, in a program with constant arguments."""
    model, arguments = handlers.seed(program.plain_model, rng_key), program.skeleton

    def read(trace: Trace) -> Replaceable:
        return replaceable_sites(model, arguments, trace)

    found = _abstract_trace(rng_key, program.plain_model, arguments, program.init_strategy, read)
    if _can_replace(program, found):
        return found
    # NumPyro cannot reparametrise sites inside `scan`, with a fixed value, renamed by `scope`.
    return found.only([name for name in found.names if _can_replace(program, found.only([name]))])


def _can_replace(program: Program, sites: Replaceable) -> bool:
    """Whether the reparametrised model has the sites and the density that it should have."""
    if not sites.names:
        return True
    users = dataclasses.replace(program, **sites._asdict())
    after = users.recentred
    shapes = {name: users.constrained_shapes[name] for name in sites.loc_scale}
    centredness = {name: jnp.zeros(shape, float_dtype()) for name, shape in shapes.items()}
    after = dataclasses.replace(
        after, skeleton=((centredness, *users.skeleton[0]), users.skeleton[1])
    )
    latent: set[str] = set()

    def read(trace: Trace) -> None:
        latent.update(name for name, site in trace.items() if is_continuous(site))

    x = jax.ShapeDtypeStruct((users.dim,), float_dtype())
    try:
        jax.eval_shape(functools.partial(after.log_density, ()), x)
        found, wanted = (
            jax.eval_shape(functools.partial(p.constrain, ()), x) for p in (after, users)
        )
        _abstract_trace(
            jax.random.key(0), after.plain_model, after.skeleton, after.init_strategy, read
        )
    except Exception:  # whatever NumPyro or the model says to that: it stays as the user wrote it
        return False
    return found == wanted and latent == set(after.unconstrained_shapes)


def _check_sites(trace: Trace) -> None:
    discrete = [name for name, site in trace.items() if is_discrete(site)]
    countable = [name for name in discrete if trace[name]["fn"].has_enumerate_support]
    if countable and countable == discrete and not _has_funsor():
        raise ImportError(
            f"the discrete latent site '{countable[0]}' is summed out with funsor, which is not "
            "installed: pip install numpyro_onestep[funsor]"
        )
    if any(is_continuous(site) for site in trace.values()):
        return
    if countable:
        raise ValueError(
            f"expected a model with a continuous latent site; got only discrete ones: {discrete}"
        )
    if discrete:
        return  # not even enumerable: NumPyro's error says so
    observed = [name for name, site in trace.items() if site["type"] == "sample"]
    if observed:
        raise ValueError(f"expected a model with a latent site; got only observed ones: {observed}")
    raise ValueError("expected a model with a latent site; got a model without sample sites")


def _has_funsor() -> bool:
    try:
        return importlib.util.find_spec("funsor") is not None
    except ValueError:  # the module is present but blocked or half imported
        return False


def _check_with_numpyro(
    rng_key: jax.Array, model: Model, arguments: Arguments, init_strategy: Callable[..., Any]
) -> None:
    """Run NumPyro's own preparation, abstractly, for its errors: they say what its users know."""
    args, kwargs = arguments

    def prepare(key: jax.Array) -> None:
        initialize_model(
            key,
            model,
            init_strategy=init_strategy,
            dynamic_args=True,
            model_args=args,
            model_kwargs=kwargs,
            validate_grad=False,
        )

    jax.eval_shape(prepare, rng_key)


def _trace_abstractly(program: Program, arguments: Arguments, rng_key: jax.Array) -> Target:
    """Target with as many arguments as data as the model allows, checked at initial points."""
    concrete = Target((), program)
    x = jax.ShapeDtypeStruct((program.dim,), float_dtype())
    for select in _SELECTIONS[:-1]:
        data, skeleton = split_arguments(arguments, select)
        target = Target(data, dataclasses.replace(program, skeleton=skeleton))
        if not data or not _traceable(target, x):
            continue
        points = target.initial_points(rng_key, 1)
        if _agree(target, concrete, points[0]):
            return target
    concrete.initial_points(rng_key, 1)
    return concrete


def _traceable(target: Target, x: jax.ShapeDtypeStruct) -> bool:
    try:
        jax.eval_shape(Target.log_density, target, x)
    except Exception:  # whatever a model does with an array it cannot have; the concrete
        return False  # arguments then raise what is wrong in earnest
    return True


def _agree(target: Target, concrete: Target, x: jax.Array) -> bool:
    """Whether a model that can be traced also means the same (it may ask for array types)."""
    traced, untraced = _log_density(target, x), _log_density(concrete, x)
    return bool(np.isclose(traced, untraced, rtol=1e-3, atol=1e-3, equal_nan=True))


@compiled()
def _log_density(target: Target, x: jax.Array) -> jax.Array:
    return target.log_density(x)
