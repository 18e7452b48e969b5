"""Threshold and temperature without target labels: the paper's 0.8 and 0.1, "by cross-validation".

    python experiments/tuning.py --benchmark digits --trials 24
    python experiments/tuning.py --early-stop asha --store runs/tuning_asha

Two pairs and two thirds of the usual steps, for minutes on two CPU cores; `scale-ray tune` has no such limits. The
options of `scale-ray tune` change the search, and the same command goes on after an interruption. The config that is
chosen is for `experiments/ablation.py --config` and `scale-ray train --config`.
"""

from scale_ray import Study, base_config, pairs, tune

study = Study(
    name="tuning-digits",
    base=base_config("digits", steps=300),
    axes={"pair": pairs("mnist:mnistm", "optdigits:mnist")},
)

if __name__ == "__main__":
    tune(
        study,
        space=["losses.threshold=float:0.5:0.95:0.05", "losses.temperature=float:0.03:1:log"],
        store="runs/tuning",
        checkpoint_every=100,
    )
