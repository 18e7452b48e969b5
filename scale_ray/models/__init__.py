"""Networks, the teacher, and the class statistics and projection bank of training."""

from scale_ray.models.alignment import Alignment
from scale_ray.models.backbones import BACKBONES, Backbone, build_encoder
from scale_ray.models.class_statistics import ClassStatistics
from scale_ray.models.discriminator import auxiliary_classifier, domain_discriminator
from scale_ray.models.network import FeatureNetwork, Network, Outputs
from scale_ray.models.projection_bank import ProjectionBank
from scale_ray.models.student import Student
from scale_ray.models.teacher import Teacher
from scale_ray.models.weights import WeightsError

__all__ = [
    "BACKBONES", "Alignment", "Backbone", "ClassStatistics", "FeatureNetwork", "Network", "Outputs", "ProjectionBank",
    "Student", "Teacher", "WeightsError", "auxiliary_classifier", "build_encoder", "domain_discriminator",
]  # fmt: skip
