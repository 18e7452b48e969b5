"""What a method's paper, or its code, sets otherwise than this package sets for all methods.

A config or a study that is built from defaults has these settings; one that is written out has what it says. No value
was chosen on target accuracy here: each is that of a paper or of its code.

To add those of a method, add one entry to USUAL, or to USUAL_WHERE_FROZEN.
"""

from typing import Any

from scale_ray.data.benchmarks import BENCHMARKS, FROZEN_DEFAULTS

# In the papers a classifier exists before the transfer loss has its full weight: TLLib fine-tunes networks whose heads
# learn in a few hundred of 20,000 steps, over which the reversal grows from 0 (Ganin et al., section 5.2.2). In a short
# training that must be said: the warm-up is as long as the source needs, and the transfer loss acts after it.
_AFTER_WARM_UP = {"baseline.transfer_from": "warm_up"}

# Their code passes both domains through the network together: torch.cat((x_s, x_t)).
_TOGETHER = {"model.batch_norm": "joint"}

# CLIP sees the middle of images whose shorter side has 224 pixels; so do all of CLIP_BACKBONES that have weights.
_CLIP_INPUT = {"data.image_size": 224, "data.resize": 224, "data.fit": "crop"}

# The methods that train no backbone, so that a benchmark's settings for one do not concern them.
_ON_CLIP = ("clip_zero_shot", "daprompt", "ad_clip")

# Method -> dotted path -> value. TLLib: its examples/domain_adaptation/image_classification/<method>.py.
USUAL: dict[str, dict[str, Any]] = {
    "dan": _AFTER_WARM_UP | _TOGETHER | {"optim.weight_decay": 5e-4},  # TLLib
    "dann": _AFTER_WARM_UP | _TOGETHER | {"optim.learning_rate": 0.01},  # TLLib
    "cdan": _AFTER_WARM_UP | _TOGETHER | {"optim.learning_rate": 0.01},  # TLLib
    "mcc": _AFTER_WARM_UP | _TOGETHER | {"optim.learning_rate": 0.005},  # TLLib
    "mdd": _AFTER_WARM_UP
    | _TOGETHER  # TLLib
    | {"optim.learning_rate": 0.004, "optim.weight_decay": 5e-4, "baseline.reversal_gamma": 20.0},
    "sdat": _AFTER_WARM_UP | _TOGETHER | {"optim.learning_rate": 0.01},  # the authors' code, for a ResNet-50
    "mic": _AFTER_WARM_UP
    | _TOGETHER  # the authors' code
    | {"optim.learning_rate": 0.002, "model.teacher_momentum": 0.9, "views.strong": "masked"},
    "shot": {"optim.learning_rate": 0.01},  # the authors' code, for Office-Home and for digits
    # The authors' code for Office-Home: 0.01 on the source and 0.001 on the target.
    "aad": {"optim.learning_rate": 0.01, "baseline.weight": 0.1},
    "clip_zero_shot": _CLIP_INPUT,
    # The released configurations ep25-32-csc.yaml and rn50.yaml, with Dassl's weight decay.
    "daprompt": _CLIP_INPUT
    | {
        "baseline.class_tokens": True,
        "optim.learning_rate": 0.003,
        "optim.schedule": "cosine",
        "optim.weight_decay": 5e-4,
    },
    "ad_clip": _CLIP_INPUT
    | {
        "optim.optimiser": "adam",
        "optim.learning_rate": 0.01,
        "optim.schedule": "cosine",
        "optim.weight_decay": 5e-4,
    },
}

# The same with a frozen encoder. A baseline that adapts nothing is a linear probe there, the usual protocol (Chen et
# al., SimCLR, section 2.2). docs/accuracy.md measures what hidden layers do to it.
USUAL_WHERE_FROZEN: dict[str, dict[str, Any]] = {"source_only": {"model.head": "linear"}}


def usual_fields(benchmark: str, method: str, *, frozen: bool) -> dict[str, Any]:
    """The settings of a method's paper on a benchmark.

    A benchmark that sets a field of the optimiser has its reasons, such as a backbone without weights: there it stays,
    unless the benchmark names another value for the method (`Benchmark.usual`).

    Args:
        benchmark: a name in BENCHMARKS.
        method: any name; of one without an entry in USUAL there are none.
        frozen: whether the encoder is frozen.
    """
    entry = BENCHMARKS[benchmark]
    fields = USUAL.get(method, {}) | (USUAL_WHERE_FROZEN.get(method, {}) if frozen else {})
    decided = {*entry.defaults, *(FROZEN_DEFAULTS if frozen else ())}
    return {
        path: value
        for path, value in fields.items()
        if method in _ON_CLIP or not (path.startswith("optim.") and path in decided)
    } | dict(entry.usual.get(method, {}))
