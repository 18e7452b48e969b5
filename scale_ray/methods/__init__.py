"""Adaptation methods, all trained by the same loop on the same batches.

To add a method, write `methods/<name>.py` and add one line to METHODS.
"""

from scale_ray.methods.aad import Aad
from scale_ray.methods.ad_clip import AdClip
from scale_ray.methods.base import Method, MethodContext, Passes, StepOutput
from scale_ray.methods.cdan import Cdan
from scale_ray.methods.clip_zero_shot import ClipZeroShot
from scale_ray.methods.dan import Dan
from scale_ray.methods.dann import Dann
from scale_ray.methods.daprompt import DaPrompt
from scale_ray.methods.fixmatch import FixMatch
from scale_ray.methods.function import TrainingData, training_function
from scale_ray.methods.mcc import Mcc
from scale_ray.methods.mdd import Mdd
from scale_ray.methods.mean_teacher import MeanTeacher
from scale_ray.methods.mic import Mic
from scale_ray.methods.prototypes import Prototypes
from scale_ray.methods.scale import Scale
from scale_ray.methods.sdat import Sdat
from scale_ray.methods.shot import Shot
from scale_ray.methods.source_only import SourceOnly
from scale_ray.registry import Registry

METHODS: Registry[type[Method]] = Registry(
    {
        "scale": Scale,
        "source_only": SourceOnly,
        "dan": Dan,
        "dann": Dann,
        "cdan": Cdan,
        "mean_teacher": MeanTeacher,
        "mcc": Mcc,
        "mdd": Mdd,
        "sdat": Sdat,
        "mic": Mic,
        "fixmatch": FixMatch,
        "shot": Shot,
        "aad": Aad,
        "prototypes": Prototypes,
        "clip_zero_shot": ClipZeroShot,
        "daprompt": DaPrompt,
        "ad_clip": AdClip,
    }
)

__all__ = ["METHODS", "Method", "MethodContext", "Passes", "StepOutput", "TrainingData", "training_function"]
