"""From images to predictions: candidates are trained on Ray, one is chosen without target labels, and it predicts."""

from scale_ray.adaptation.run import Adaptation, Asked, adapt

__all__ = ["Adaptation", "Asked", "adapt"]
