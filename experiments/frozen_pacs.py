"""The paper's grid on photographs, paintings, cartoons and sketches in minutes, on two CPU cores: a frozen encoder.

    python experiments/frozen_pacs.py --root PACS --weights mobilenet_v2.pth

PACS is ROOT/domain/class/image.jpg. Without --weights, torchvision's for ImageNet are downloaded. Features of every
image are computed once; heads on a bottleneck train on them. Tables say `frozen`: this is no fine-tuning.
"""

from scale_ray.cli import experiment

if __name__ == "__main__":
    experiment(
        benchmark="pacs",
        frozen=True,
        backbones="mobilenet_v2",
        losses="ce,ce+ssl,ce+dist,ce+reg,ce+ssl+dist,ce+ssl+reg,ce+dist+reg,ce+ssl+dist+reg",
        storage="runs/frozen_pacs",
        name="frozen-pacs",
    )
