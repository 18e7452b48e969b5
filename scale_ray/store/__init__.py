"""The store owns identity and progress: what it holds is done, what it lacks is still to do."""

from scale_ray.store.filesystems import StoreError
from scale_ray.store.store import Store, StudyPlan, is_current, unreadable

__all__ = ["Store", "StoreError", "StudyPlan", "is_current", "unreadable"]
