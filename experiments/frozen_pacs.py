"""The paper's grid on photographs, paintings, cartoons and sketches in minutes, on two CPU cores: a frozen encoder.

    python experiments/frozen_pacs.py --root PACS --weights mobilenet_v2.pth

PACS is ROOT/domain/class/image.jpg. Without --weights, torchvision's for ImageNet are downloaded. Features of every
image are computed once; heads on a bottleneck train on them. Tables say `frozen`: this is no fine-tuning.
"""

from itertools import permutations

from scale_ray import Study, base_config, combinations, main, pairs

study = Study(
    name="frozen-pacs",
    base=base_config("pacs", {"model.encoder": "frozen", "model.backbone": "mobilenet_v2"}),
    axes={
        "seed": range(3),
        "pair": pairs(*map(":".join, permutations(["art_painting", "cartoon", "photo", "sketch"], 2))),
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
    main(study, store="runs/frozen_pacs")
