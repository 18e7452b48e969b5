"""From images to predictions: candidates are trained on Ray, one is chosen without target labels, and it predicts."""

from scale_ray.adaptation.asked import Asked
from scale_ray.adaptation.outcome import Adaptation
from scale_ray.adaptation.run import adapt

__all__ = ["Adaptation", "Asked", "adapt"]
