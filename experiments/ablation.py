"""The paper's ablation: every domain pair x loss combination x backbone x seed.

    python experiments/ablation.py --benchmark office_home --root ~/OfficeHome --store runs/office_home
    python experiments/ablation.py --benchmark digits --dry-run

864 cells on Office-Home with the defaults. The options of `scale-ray ablate` change the grid, and the same command goes
on after an interruption.
"""

from itertools import permutations

from scale_ray import Study, base_config, combinations, main, pairs

study = Study(
    name="ablation-office_home",
    base=base_config("office_home"),
    axes={
        "seed": range(3),
        "pair": pairs(*map(":".join, permutations(["Art", "Clipart", "Product", "Real_World"], 2))),
        "model.backbone": ["resnet50", "resnet101", "resnet152"],
        # Table 1 of the paper and the combination that it lacks (ce+ssl+reg): ce with every subset of {ssl, dist, reg}.
        "losses": combinations(
            "ce",
            "ce+ssl",
            "ce+dist",
            "ce+reg",
            "ce+ssl+dist",
            "ce+ssl+reg",
            "ce+dist+reg",
            "ce+ssl+dist+reg",
        ),
    },
)

if __name__ == "__main__":
    main(study, store="runs/ablation")
