"""Four methods on photographs and drawings, with a small encoder and a budget for two CPU cores.

    python experiments/comparison_pacs.py --root PACS --weights mobilenet_v2.pth

PACS is ROOT/domain/class/image.jpg. Without --weights, torchvision's for ImageNet are downloaded.
"""

from scale_ray.cli import experiment

if __name__ == "__main__":
    experiment(
        "compare",
        benchmark="pacs",
        backbone="mobilenet_v2",
        methods="source_only,dann,mcc,scale:ce+ssl,scale",
        pairs="art_painting:cartoon,cartoon:art_painting",
        steps=600,
        seeds="1",
        storage="runs/comparison_pacs",
        name="comparison-pacs",
        checkpoint_every=100,
    )
