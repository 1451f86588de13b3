"""The line on top of a figure: verdict and evidence."""

from typing import Any

import numpy as np
import xarray as xr


def headline(result: Any, stats: xr.Dataset) -> str:
    """Verdict and log evidence of a result with the group `stats`, in one line."""
    title = f"verdict: {str(result.attrs.get('verdict', 'none')).replace('_', ' ')}"
    if "log_evidence" not in stats:
        return title
    value = float(stats["log_evidence"])
    if not np.isfinite(value):
        return f"{title}  ·  log evidence not available"
    error = float(stats["log_evidence_se"]) if "log_evidence_se" in stats else float("nan")
    return f"{title}  ·  log evidence {value:.3f} ± {error:.2g}"
