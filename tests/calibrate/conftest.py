"""The fixture ``world`` of ``calibration_world``."""

from calibration_world import world

__all__ = ["world"]
