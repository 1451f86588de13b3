"""How the cost grows with dimension, number of observations and number of draws.

    python examples/benchmarks/growth.py --run --seeds 0 --axis dimension
    python examples/benchmarks/growth.py --run --cores 0 --method one-step "NUTS vectorized"
    python examples/benchmarks/growth.py --table
    python examples/benchmarks/growth.py --page

One quantity varies at a time, every run is a fresh process, and the records are kept as those of
`compare_peers` are, in `results/growth.jsonl`:

* dimension: Gaussian posteriors of 10 to 1000 coefficients of a regression with known noise, twice
  as many rows as columns; log evidence, means and sds are known;
* observations: 10 coefficients from 100 to a million rows, of a logistic regression and of a linear
  one with unknown noise, whose log evidence is known;
* draws: eight schools, 1000 to a million draws asked for.

The exponents of the table are slopes of log seconds between neighbours; a cliff would be a slope
far above the others.
"""

import argparse
import itertools
import math
from collections.abc import Iterator
from functools import partial

import numpy as np
from scipy.linalg import cho_factor, cho_solve

import data
import growth_page
import models
import suite
from peers import process
from peers.records import RESULTS, load

RECORDS = RESULTS / "growth.jsonl"
COLUMNS = 10
DRAWS = 4000


def gaussian_data(dim: int) -> dict[str, np.ndarray]:
    """Rows x: (2 dim, dim) with correlated columns, and y: (2 dim,), of unit noise."""
    rng = np.random.default_rng(dim)
    x = (rng.normal(size=(2 * dim, dim)) + rng.normal(size=(2 * dim, 1))) / math.sqrt(dim)
    return {"x": x, "y": x @ rng.normal(size=dim) + rng.normal(size=2 * dim)}


def gaussian_log_z(x: np.ndarray, y: np.ndarray) -> float:
    """Log density of y under N(0, I + x x'), by the matrix determinant lemma."""
    factor = cho_factor(np.eye(x.shape[1]) + x.T @ x)
    fitted = cho_solve(factor, x.T @ y)
    log_det = 2.0 * np.log(np.diag(factor[0])).sum()
    return float(-0.5 * (len(y) * math.log(2.0 * math.pi) + log_det + y @ (y - x @ fitted)))


def logistic_data(rows: int) -> dict[str, np.ndarray]:
    """Columns with ones first, x: (rows, 10), and outcomes y: (rows,) of 0 and 1."""
    rng = np.random.default_rng(rows)
    x = np.column_stack([np.ones(rows), rng.normal(size=(rows, COLUMNS - 1))])
    logits = x @ (0.7 * np.random.default_rng(0).normal(size=COLUMNS))
    return {"x": x, "y": (rng.random(rows) < 1.0 / (1.0 + np.exp(-logits))).astype(float)}


def row(name: str) -> suite.Row:
    """The row of a name such as `gaussian-300`, `logistic-1000`, `linear-1000`, or of the suite.

    Raises:
        ValueError: there is none.
    """
    kind, _, size = name.partition("-")
    if kind == "gaussian" and size.isdigit():
        arrays = gaussian_data(int(size))
        log_z = gaussian_log_z(**arrays)
        return suite.Row(name, models.known_noise, lambda _: arrays, int(size), log_z)
    if kind == "logistic" and size.isdigit():
        arrays = logistic_data(int(size))
        return suite.Row(name, models.logistic_regression, lambda _: arrays, COLUMNS, None)
    if kind == "linear" and size.isdigit():
        arrays = data.conjugate(int(size), COLUMNS)
        log_z = suite.conjugate_truth(**arrays, **data.CONJUGATE_PRIOR)[0]
        model = partial(models.conjugate_regression, **data.CONJUGATE_PRIOR)
        return suite.Row(name, model, lambda _: arrays, COLUMNS + 1, log_z)
    return suite.by_name(name)


# By axis: pairs of the row's name and the draws asked for.
AXES: dict[str, tuple[tuple[str, int], ...]] = {
    "dimension": tuple((f"gaussian-{d}", DRAWS) for d in (10, 30, 100, 300, 1000)),
    "observations": tuple(
        (f"{kind}-{10**k}", DRAWS) for kind in ("logistic", "linear") for k in range(2, 7)
    ),
    "draws": tuple(("eight_schools", 10**k) for k in range(3, 7)),
}


def pieces(options: argparse.Namespace) -> Iterator[process.Piece]:
    """What is asked for; other methods than ours where they ask for draws."""
    chosen = process.installed(options.method)
    for seed, axis in itertools.product(options.seeds, options.axis or AXES):
        for (name, budget), peer in itertools.product(AXES[axis], chosen):
            yield name, peer.name, budget, seed


def main(argv: list[str] | None = None) -> None:
    """Does what the command line asks for; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the tables")
    parser.add_argument("--page", action="store_true", help="write the tables of the docs page")
    parser.add_argument("--axis", nargs="+", choices=AXES, help="default: all")
    parser.add_argument("--method", nargs="+", default=["one-step"], help="see compare_peers")
    process.add_options(parser, RECORDS)
    options = parser.parse_args(argv)
    if options.child:
        process.child(options, row)
        return
    if options.run:
        process.measure(__file__, pieces(options), options)
    if options.table:
        print(growth_page.tables(load(options.records)))
    if options.page:
        growth_page.write(load(options.records))


if __name__ == "__main__":
    main()
