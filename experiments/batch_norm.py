"""How BatchNorm should treat the two domains, at several thresholds: a study with a filter.

    python experiments/batch_norm.py --dry-run
    python experiments/batch_norm.py --seeds 3 --store runs/batch_norm

Nothing reads a threshold without ssl, so combinations without it have one.
"""

from scale_ray import Study, base_config, combinations, main, pairs

study = Study(
    name="batch-norm",
    base=base_config("digits", steps=300),
    axes={
        "seed": [0],
        "pair": pairs("mnist:mnistm", "optdigits:mnist"),
        "losses": combinations("ce", "ce+ssl", "ce+ssl+dist+reg"),
        "model.batch_norm": ["joint", "separate", "domain"],
        "losses.threshold": [0.7, 0.8, 0.9],
    },
).where(lambda config: "ssl" in config.losses.terms or config.losses.threshold == 0.8)

if __name__ == "__main__":
    main(study)
