"""The main job in minutes, on embedded data and two CPU cores: a real ablation grid on handwritten digits.

    make demo

Store and report go to runs/demo. `python experiments/demo.py --seeds 3` widens it to three seeds; cells that are done
are not run again.
"""

from scale_ray.cli import experiment

if __name__ == "__main__":
    experiment(
        benchmark="digits",
        pairs="mnist:mnistm,optdigits:mnist",
        losses="ce,ce+ssl,ce+ssl+dist,ce+ssl+dist+reg",
        seeds="1",
        storage="runs/demo",
        name="demo",
        checkpoint_every=100,
    )
