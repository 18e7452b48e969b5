"""`scale-ray data check`: everything about a benchmark's images that a person should know before training on them."""

from scale_ray.data.check.findings import Finding
from scale_ray.data.check.run import DataReport, check_data

__all__ = ["DataReport", "Finding", "check_data"]
