"""Multi-step diffusion samplers, as baselines and as teachers: DIS, PIS and DDS.

They draw by their stochastic process, one path of `num_path_steps` steps per draw. A draw's weight
is the ratio of path densities, exact for these discrete kernels.
"""

from __future__ import annotations

import dataclasses

from numpyro_onestep.flow import DiffusionFlow, EulerMaruyama, Kernel, PinnedBrownianMotion
from numpyro_onestep.objectives import Objective, PathKL
from numpyro_onestep.schedules import EulerCosineSchedule, Schedule
from numpyro_onestep.training.methods.diffusion import DiffusionMethod


@dataclasses.dataclass(frozen=True, kw_only=True)
class _MultiStep(DiffusionMethod):
    objectives: tuple[tuple[float, Objective], ...] = ((1.0, PathKL()),)
    num_path_steps: int = 32
    batch_size: int = 128
    max_rounds: int = 8

    @property
    def chunk_width(self) -> int:
        """Coordinates of the noise: a path has no Jacobian."""
        return self.num_path_steps + 1

    @property
    def num_sampling_steps(self) -> int:
        """As many as a path of training has."""
        return self.num_path_steps

    def flow(self, dim: int) -> DiffusionFlow:
        """The control with its schedule; draws follow the stochastic process."""
        return DiffusionFlow(self.network(dim), self.schedule, self.residual, self.kernel)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDS(_MultiStep):
    """Denoising diffusion sampler: exponential-integrator steps (arXiv 2302.13834)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DIS(_MultiStep):
    """Time-reversed diffusion sampler: Euler-Maruyama steps both ways (arXiv 2211.01364)."""

    schedule: Schedule = EulerCosineSchedule()
    kernel: Kernel = EulerMaruyama()


@dataclasses.dataclass(frozen=True, kw_only=True)
class PIS(_MultiStep):
    """Path integral sampler: Brownian motion from a point, and its bridge (arXiv 2111.15141)."""

    kernel: Kernel = PinnedBrownianMotion()
