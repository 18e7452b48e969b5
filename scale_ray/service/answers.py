"""A study as the API tells it."""

import json
from typing import Any

from pydantic import BaseModel, Field

from scale_ray.service.database import StudyRow


class StudyAnswer(BaseModel):
    """A study, as the API tells it."""

    name: str
    owner: str
    state: str = Field(description="waiting, starting, running, ending, paused, cancelled, done, failed")
    problem: str = Field(description="why it is in that state; empty where there is nothing to say")
    cells: int
    done: int
    failed: int
    places: int = Field(description="trainings that it may run at once")
    priority: int
    share: float
    store: str
    job: str = Field(description="Ray's id of its job; empty where none runs")
    attempt: int = Field(description="jobs so far")
    gpu_hours: float = Field(description="within the last week")
    created: float = Field(description="seconds since 1970")
    changed: float
    document: dict[str, Any] = Field(description="the submission")

    @classmethod
    def of(cls, row: StudyRow) -> "StudyAnswer":
        own = ("name", "owner", "state", "problem", "cells", "done", "failed", "places", "priority", "share", "store")
        values = {name: getattr(row, name) for name in (*own, "job", "attempt", "created", "changed")}
        used = sum(row.gpu_seconds_by_day.values()) / 3600
        return cls(**values, gpu_hours=used, document=json.loads(row.document))
