"""Results that ArviZ understands, on its lines 0.23 and 1.x: the only room that imports it."""

from .arviz_lines import from_netcdf, group_dataset, group_names, psis

__all__ = ["from_netcdf", "group_dataset", "group_names", "psis"]
