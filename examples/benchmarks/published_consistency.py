"""What the consistency terms of OSDS do: one step against many, with all terms and without each.

Trained for equal numbers of updates from the same seed, without a limit of time, so that only the
one term that is left out differs.
"""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import suite

RESULTS = Path(__file__).parent / "results" / "published_consistency.jsonl"
TARGETS = ("seeds", "ionosphere")
ALL, NO_VOLUME, NO_STATE = "all", "no volume", "no state"
# By the term left out, the gap that it is for.
MEASURED_BY = {NO_VOLUME: "volume_gap", NO_STATE: "end_points"}
NUM_ROUNDS = 10
NUM_STEPS = 16
NUM_DRAWS = 2000


def variants() -> dict:
    """OSDS with all its objectives, and without one of the consistency terms."""
    from numpyro_onestep import OSDS
    from numpyro_onestep.objectives import StateConsistency, VolumeConsistency, WarmUp

    osds = OSDS(max_modes=1, max_rounds=NUM_ROUNDS, num_annealing=0)

    def without(kind: type) -> OSDS:
        kept = tuple(
            (weight, o)
            for weight, o in osds.objectives
            if not isinstance(o.objective if isinstance(o, WarmUp) else o, kind)
        )
        return dataclasses.replace(osds, objectives=kept)

    return {
        ALL: osds,
        NO_VOLUME: without(VolumeConsistency),
        NO_STATE: without(StateConsistency),
    }


def gaps(target: Any, sampler: Any, seed: int) -> dict:
    """One step against `NUM_STEPS` of the same network, in the coordinates of the sampler.

    `volume_gap` is the mean absolute difference of the traces that the published weight adds up,
    exact ones, since the noise of a probe is no inconsistency; `end_points` the mean squared
    distance.
    """
    import jax

    from numpyro_onestep import TraceLogDet
    from numpyro_onestep.inference.drawing import Part
    from numpyro_onestep.inference.trace import trace_log_weights
    from numpyro_onestep.training import draw

    key = jax.random.key(1000 + seed)
    chunk_key = jax.random.fold_in(key, 0)  # what trace weights draw their only chunk with
    ends, volumes = [], []
    for num_steps in (1, NUM_STEPS):
        draws = draw(target, sampler.affine, sampler.steps(target, num_steps), chunk_key, NUM_DRAWS)
        ends.append(np.asarray(draws.image))
        log_weight = trace_log_weights(
            [Part(target, sampler, None, 0.0)],
            TraceLogDet(None),
            key,
            NUM_DRAWS,
            NUM_DRAWS,
            num_steps=num_steps,
        )
        volumes.append(log_weight - np.asarray(draws.log_density - draws.log_base, np.float64))
    distance = ((ends[0] - ends[1]) ** 2).sum(-1)
    gap = np.abs(volumes[0] - volumes[1])
    return {
        "end_points": float(np.mean(distance[np.isfinite(distance)])),
        "volume_gap": float(np.mean(gap[np.isfinite(gap)])),
    }


def run(row: suite.Row, seed: int, data_dir: str | None) -> None:
    """Trains and measures what is not kept yet for a target and a seed; keeps and prints it."""
    import jax

    from numpyro_onestep.target import build_target
    from numpyro_onestep.training import train

    done = {(x["target"], x["seed"], x["terms"]) for x in load()}
    for terms, method in variants().items():
        if (row.name, seed, terms) in done:
            continue
        began = time.perf_counter()
        target = build_target(jax.random.key(seed), row.model, (), row.load(data_dir))
        mixture, history = train(target, jax.random.key(seed), method)
        (sampler,) = mixture.components
        line = {
            "target": row.name,
            "seed": seed,
            "terms": terms,
            "updates": len(history.losses),
            **gaps(mixture.target(target, 0), sampler, seed),
            "wall": time.perf_counter() - began,
        }
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


def load() -> list[dict]:
    """The kept lines."""
    text = RESULTS.read_text() if RESULTS.exists() else ""
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def rows(lines: list[dict]) -> list[list[str]]:
    """The gap that each term is for, with and without it, by seed, and the ratio of the means."""
    found = []
    for target in sorted({x["target"] for x in lines}):
        by = {(x["terms"], x["seed"]): x for x in lines if x["target"] == target}
        for left_out, key in MEASURED_BY.items():
            seeds = [seed for name, seed in sorted(by) if name == left_out and (ALL, seed) in by]
            if not seeds:
                continue
            given, lacking = ([by[terms, seed] for seed in seeds] for terms in (ALL, left_out))
            updates = {x["updates"] for x in (*given, *lacking)}
            values = [[x[key] for x in of] for of in (given, lacking)]
            shown = [", ".join(f"{value:.3f}" for value in of) for of in values]
            ratio = np.mean(values[0]) / np.mean(values[1])
            names = {NO_VOLUME: "volume consistency", NO_STATE: "state consistency"}
            found.append(
                [
                    target,
                    names[left_out],
                    key.replace("_", " "),
                    ", ".join(map(str, sorted(updates))),
                    *shown,
                    f"{ratio:.2f}",
                ]
            )
    return found
