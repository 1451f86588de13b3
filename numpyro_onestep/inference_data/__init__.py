"""Results that ArviZ understands, on its lines 0.23 and 1.x: the only room that imports it.

* `arviz_lines`: what differs between the lines (container, PSIS), behind one face;
* `dims`: names and coordinates of axes, plates first, the user's over them;
* `build`: the groups of a result;
* `table`: the summary table.
"""

from .arviz_lines import (
    from_netcdf,
    group_dataset,
    group_names,
    inference_library,
    is_result,
    psis,
    wrap_groups,
)
from .build import INFERENCE_LIBRARY, build, list_attr, plain_attrs
from .dims import AxisNames, check_names, merge_names
from .table import scalar_labels, summary

__all__ = [
    "INFERENCE_LIBRARY",
    "AxisNames",
    "build",
    "check_names",
    "from_netcdf",
    "group_dataset",
    "group_names",
    "inference_library",
    "is_result",
    "list_attr",
    "merge_names",
    "plain_attrs",
    "psis",
    "scalar_labels",
    "summary",
    "wrap_groups",
]
