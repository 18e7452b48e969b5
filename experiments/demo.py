"""The main job in minutes, on embedded data and two CPU cores: a real ablation grid on handwritten digits.

    make demo

Store and report go to runs/demo. `python experiments/demo.py --seeds 3` widens it to three seeds; cells that are done
are not run again.
"""

from scale_ray import Study, base_config, combinations, main, pairs

study = Study(
    name="demo",
    base=base_config("digits"),
    axes={
        "seed": [0],
        "pair": pairs("mnist:mnistm", "optdigits:mnist"),
        "losses": combinations("ce", "ce+ssl", "ce+ssl+dist", "ce+ssl+dist+reg"),
    },
)

if __name__ == "__main__":
    main(study, store="runs/demo", checkpoint_every=100)
