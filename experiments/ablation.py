"""The paper's ablation: every domain pair x loss combination x backbone x seed.

    python experiments/ablation.py --benchmark office_home --root ~/OfficeHome --storage runs/office_home
    python experiments/ablation.py --benchmark digits --dry-run

864 cells on Office-Home with the defaults. Every option of `scale-ray ablate` narrows or widens the grid, and the same
command goes on after an interruption.
"""

from scale_ray.cli import experiment

# Table 1 of the paper and the combination that it lacks (ce+ssl+reg): ce with every subset of {ssl, dist, reg}.
COMBINATIONS = [
    "ce",
    "ce+ssl",
    "ce+dist",
    "ce+reg",
    "ce+ssl+dist",
    "ce+ssl+reg",
    "ce+dist+reg",
    "ce+ssl+dist+reg",
]

if __name__ == "__main__":
    experiment(
        benchmark="office_home",
        losses=",".join(COMBINATIONS),
        seeds="3",
        storage="runs/ablation",
    )
