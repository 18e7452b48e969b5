"""The paper's Table 2 with measured rows: every method on the same batches, seeds and budget.

    python experiments/comparison.py
    python experiments/comparison.py --benchmark office_home --root ~/OfficeHome --store runs/office_home
    scale-ray report runs/office_home --published

Digits by default: 8 methods x 4 domain pairs x 3 seeds. The options of `scale-ray compare` change the study, and the
same command goes on after an interruption.
"""

from scale_ray import Study, approaches, base_config, main, pairs, usual_settings

base = base_config("digits")

study = Study(
    name="comparison-digits",
    base=base,
    usual=usual_settings(base),  # of the methods' papers
    axes={
        "seed": range(3),
        "pair": pairs("mnist:mnistm", "optdigits:mnist", "fonts:mnist", "fonts:mnistm"),
        # scale:ce+ssl is FixMatch with a mean teacher.
        "method": approaches("source_only", "dan", "dann", "cdan", "mcc", "mean_teacher", "scale:ce+ssl", "scale"),
    },
)

if __name__ == "__main__":
    main(study, store="runs/comparison")
