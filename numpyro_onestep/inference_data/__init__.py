"""Results that ArviZ understands, on its lines 0.23 and 1.x: the only room that imports it.

* `arviz_lines`: what differs between the lines (container, PSIS), behind one face;
* `dims`: names and coordinates of axes, plates first, the user's over them;
* `build`: the groups of a result;
* `plain`: results as dictionaries of arrays;
* `table`: the summary table.
"""

from .arviz_lines import (
    Convergence,
    add_groups,
    from_netcdf,
    group_dataset,
    group_names,
    inference_library,
    is_result,
    mean_ess,
    psis,
    worst_convergence,
    wrap_groups,
)
from .build import INFERENCE_LIBRARY, build, list_attr, plain_attrs
from .dims import SAMPLE_DIMS, AxisNames, argument_names, check_names, make_dataset, merge_names
from .plain import from_plain, to_plain
from .table import scalar_labels, summary, weighted_summary

__all__ = [
    "INFERENCE_LIBRARY",
    "SAMPLE_DIMS",
    "AxisNames",
    "Convergence",
    "add_groups",
    "argument_names",
    "build",
    "check_names",
    "from_netcdf",
    "from_plain",
    "group_dataset",
    "group_names",
    "inference_library",
    "is_result",
    "list_attr",
    "make_dataset",
    "mean_ess",
    "merge_names",
    "plain_attrs",
    "psis",
    "scalar_labels",
    "summary",
    "to_plain",
    "weighted_summary",
    "worst_convergence",
    "wrap_groups",
]
