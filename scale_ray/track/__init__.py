"""Trackers show what a store holds beside the rest of one's work: TensorBoard, MLflow, Weights & Biases, trackio."""

from scale_ray.track.names import Names
from scale_ray.track.sending import UNPLANNED, report_files, send_records, send_report, study_cells
from scale_ray.track.tracker import Tracker, TrackError
from scale_ray.track.trackers import TRACKERS, check_targets, open_trackers
from scale_ray.track.tracking import Tracking
from scale_ray.track.trial import TrackedTrial

__all__ = [
    "TRACKERS", "UNPLANNED", "Names", "TrackError", "TrackedTrial", "Tracker", "Tracking", "check_targets",
    "open_trackers", "report_files", "send_records", "send_report", "study_cells",
]  # fmt: skip
