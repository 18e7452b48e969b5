"""The store owns identity and progress: a trial with a record in it is done, all others remain to be run."""

from scale_ray.store.filesystems import StoreError
from scale_ray.store.plans import PlanFile, StudyPlan
from scale_ray.store.predictions import StoredPredictions
from scale_ray.store.record_files import is_current, is_start, unreadable
from scale_ray.store.store import INDEX, Store

__all__ = [
    "INDEX", "PlanFile", "Store", "StoreError", "StoredPredictions", "StudyPlan", "is_current", "is_start",
    "unreadable",
]  # fmt: skip
