"""Tests compile more than they compute: compile fast rather than to fast code, and once."""

import os
import shutil
import tempfile
from pathlib import Path

import jax

from numpyro_onestep import compilation

# Every compiled program maps memory, and Linux grants a process 65,530 maps: beyond them the
# compiler dies with a segmentation fault.
_MAX_MAPS = 30_000


def pytest_configure():
    jax.config.update("jax_disable_most_optimizations", True)
    # Every core has a worker.
    compilation.has_spare_core = lambda: False
    # Two runs of one model compile the same program: also where they are in different workers.
    jax.config.update("jax_compilation_cache_dir", str(_cache()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):
        shutil.rmtree(_cache(), ignore_errors=True)


def _cache():
    # The controlling process is the parent of its workers.
    owner = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    return Path(tempfile.gettempdir()) / f"numpyro_onestep_tests_{owner}"


def pytest_runtest_teardown(item, nextitem):
    # Between files: tests of one file may count what is compiled.
    if nextitem is not None and nextitem.path == item.path:
        return
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > _MAX_MAPS:
        jax.clear_caches()
