"""Data of the reference models: typed in, from scikit-learn, or from a folder of CSV files."""

import os
from pathlib import Path

import numpy as np

ENVIRONMENT = "NUMPYRO_ONESTEP_DATA"

EIGHT_SCHOOLS = {
    "y": np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]),
    "sigma": np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]),
}

NORMAL_MEANS = {"y": np.array([1.0, -0.5])}

_GERMINATED = "10 23 23 26 17 5 53 55 32 46 10 8 10 8 23 0 3 22 15 32 3"
_PLANTED = "39 62 81 51 39 6 74 72 51 79 13 16 30 28 45 4 12 41 30 51 7"
_EXTRACT = "0 0 0 0 0 1 1 1 1 1 1 0 0 0 0 0 1 1 1 1 1"
SEEDS = {
    "germinated": np.array(_GERMINATED.split(), float),
    "total": np.array(_PLANTED.split(), int),
    "x1": np.repeat([0.0, 1.0], [11, 10]),
    "x2": np.array(_EXTRACT.split(), float),
}

_WALK = (
    "0.21592641 0.118771404 -0.07945447 0.037677474 -0.27885845 -0.1484156 -0.3250906 -0.22957903 "
    "-0.44110894 -0.09830782 -0.8786016 -0.83736074 -0.7384849 -0.8939254 -0.7774566 -0.70238715 "
    "-0.87771565 -0.51853573 -0.6948214 -0.6202789"
)
BROWNIAN = {
    "y": np.array(_WALK.split(), float),
    "observed": np.r_[0:10, 20:30],
}


def standardised(x: np.ndarray) -> np.ndarray:
    """Centres and scales the columns of x: (n, p) with ddof 0 and prepends ones: (n, p + 1)."""
    scale = x.std(0)
    x = (x - x.mean(0)) / np.where(scale == 0.0, 1.0, scale)
    return np.column_stack([np.ones(len(x)), x])


def breast_cancer() -> dict[str, np.ndarray]:
    """The Wisconsin diagnostic data that scikit-learn ships: 569 rows, 30 columns and ones."""
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    return {"x": standardised(x), "y": y}


def diabetes() -> dict[str, np.ndarray]:
    """The diabetes data that scikit-learn ships, standardised: 442 rows, 10 columns."""
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    return {"x": standardised(x)[:, 1:], "y": (y - y.mean()) / y.std()}


def folder(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder of CSV files: `data_dir`, else the environment's.

    Raises:
        FileNotFoundError: neither is given, or it is no folder.
    """
    chosen = data_dir or os.environ.get(ENVIRONMENT)
    if not chosen or not Path(chosen).is_dir():
        raise FileNotFoundError(
            f"expected a data folder from --data-dir or {ENVIRONMENT}; got {chosen!r}"
        )
    return Path(chosen)


def german_credit(data_dir: str | os.PathLike[str] | None = None) -> dict[str, np.ndarray]:
    """Columns over their sd, not centred, and ones: (1000, 25); y is the label less one."""
    table = np.loadtxt(folder(data_dir) / "german_credit.csv", delimiter=",")
    x = table[:, :-1] / table[:, :-1].std(0)
    return {"x": np.column_stack([np.ones(len(x)), x]), "y": table[:, -1] - 1.0}


def labelled(name: str, data_dir: str | os.PathLike[str] | None = None) -> dict[str, np.ndarray]:
    """`ionosphere` or `sonar`: standardised columns and ones; labels -1, 1 become 0, 1."""
    table = np.loadtxt(folder(data_dir) / f"{name}.csv", delimiter=",")
    return {"x": standardised(table[:, :-1]), "y": (table[:, -1] + 1.0) / 2.0}


def pines(
    data_dir: str | os.PathLike[str] | None = None, *, cells: int = 40, variance: float = 1.91
) -> dict:
    """The 126 Finnish pines in a grid of cells x cells, and the prior of their log intensity.

    The covariance is `variance * exp(-33 distance / cells)`, distance in grid indices.
    """
    points = np.loadtxt(folder(data_dir) / "pines.csv", delimiter=",", skiprows=1, usecols=(1, 2))
    counts, _, _ = np.histogram2d(*points.T, bins=cells, range=[[0.0, 1.0], [0.0, 1.0]])
    index = np.stack(np.meshgrid(np.arange(cells), np.arange(cells), indexing="ij"), -1)
    index = index.reshape(-1, 2)
    distance = np.linalg.norm(index[:, None] - index[None], axis=-1)
    factor = np.linalg.cholesky(variance * np.exp(-33.0 * distance / cells))
    return {"counts": counts, "factor": factor, "mean": np.log(len(points)) - 0.5 * variance}


# Prior of the conjugate regression, and how its data were made.
CONJUGATE_PRIOR = {"prior_scale": 2.0, "shape": 3.0, "rate": 2.0}


def conjugate(rows: int = 60, columns: int = 11, seed: int = 12) -> dict[str, np.ndarray]:
    """Regression data of a fixed seed with correlated columns: x (rows, columns), y (rows,)."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(rows, 1))
    x = 0.8 * rng.normal(size=(rows, columns)) + 0.6 * shared
    y = x @ rng.normal(size=columns) + 0.7 * rng.normal(size=rows)
    return {"x": x, "y": y}
