"""The studies that `scale-ray ablate`, `scale-ray compare` and `scale-ray tune` start from."""

from scale_ray.data.benchmarks import BENCHMARKS
from scale_ray.data.defaults import base_config, usual_settings
from scale_ray.study import Study, approaches, combinations, pairs

ABLATE = """Train every domain pair x loss combination x backbone x seed on Ray, then write the report.

Run the same command again after an interruption or with more values: finished cells are not run again.
"""

COMPARE = """Train every method x domain pair x seed on Ray with one budget, then write the report.

Run the same command again after an interruption or with more values: finished cells are not run again. What
--set baseline.… sets goes to the methods that read it.
"""


def ablation() -> Study:
    return Study(
        name="ablation-digits",
        base=base_config("digits"),
        axes={
            "seed": range(3),
            "pair": pairs(*map(":".join, BENCHMARKS["digits"].pairs)),
            "model.backbone": ["lenet"],
            "losses": combinations("ce", "ce+ssl", "ce+ssl+dist", "ce+ssl+dist+reg"),
        },
    )


def automatic() -> Study:
    """Without its candidates, which depend on the options: see `training.candidates`."""
    base = base_config("digits")
    return Study(
        name="auto-digits",
        base=base,
        usual=usual_settings(base),
        axes={"seed": [0], "pair": pairs(*map(":".join, BENCHMARKS["digits"].pairs))},
    )


def search() -> Study:
    study = ablation()
    return Study("tuning-digits", study.base, {"pair": study.axes["pair"]})


def comparison() -> Study:
    base = base_config("digits")
    return Study(
        name="comparison-digits",
        base=base,
        usual=usual_settings(base),
        axes={
            "seed": range(3),
            "pair": pairs(*map(":".join, BENCHMARKS["digits"].pairs)),
            # scale:ce+ssl is FixMatch with a mean teacher.
            "method": approaches("source_only", "dan", "dann", "cdan", "mcc", "mean_teacher", "scale:ce+ssl", "scale"),
        },
    )


def with_prototypes(study: Study) -> Study:
    """A comparison with its cheapest method too, which takes seconds, where a pre-trained encoder is compared."""
    if study.base.model.weights == "none":
        return study
    return study.with_axes({"method": [*study.axes["method"], *approaches("prototypes")]})
