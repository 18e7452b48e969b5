"""Six methods on photographs and drawings, with a small encoder and a budget for two CPU cores.

    python experiments/comparison_pacs.py --root PACS --weights mobilenet_v2.pth

PACS is ROOT/domain/class/image.jpg. Without --weights, torchvision's for ImageNet are downloaded.
"""

from scale_ray import Study, approaches, base_config, main, pairs, usual_settings

base = base_config("pacs", {"model.backbone": "mobilenet_v2"}, steps=600)

study = Study(
    name="comparison-pacs",
    base=base,
    usual=usual_settings(base),  # of the methods' papers
    axes={
        "seed": [0],
        "pair": pairs("art_painting:cartoon", "cartoon:art_painting"),
        "method": approaches("source_only", "prototypes", "dann", "mcc", "scale:ce+ssl", "scale"),
    },
)

if __name__ == "__main__":
    main(study, store="runs/comparison_pacs", checkpoint_every=100)
