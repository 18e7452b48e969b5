"""Images a second of `scale-ray predict`, from files to rows, against the bare forward pass.

    python benchmarks/predict.py --images photos/ [--device cuda] [--backbone mobilenet_v2,resnet50]

The bare forward pass gets the same images, decoded before and held in memory, in the same batches: view, network, copy
to the host. Both take turns, and the median of the ratios counts. Decoding alone, by the same threads, says what bounds
the rest: on a CPU it takes cores from the network, on a GPU it runs beside it. On a CPU, read the ratio of CPU time:
where nothing else runs it is that of images a second, and other programs change it less.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import leave

from scale_ray.bundle.contents import Bundle
from scale_ray.bundle.images import images_named, read_pixels
from scale_ray.bundle.model import Model, in_advance
from scale_ray.config import TrialConfig
from scale_ray.data.views import evaluation_view
from scale_ray.models import build_encoder
from scale_ray.models.backbones import feature_dim

CLASSES = 22


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=Path, required=True, help="a folder of images")
    parser.add_argument("--backbone", default="lenet,mobilenet_v2,resnet50")
    parser.add_argument("--count", type=int, default=512, help="images; those of the folder again and again")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    found = images_named([asked.images]).paths
    paths = [found[index % len(found)] for index in range(asked.count)]
    rows = []
    for backbone in asked.backbone.split(","):
        rows.append(_measured(backbone, paths, asked.batch, asked.repeats, asked.device))
        print(rows[-1], flush=True)
    size = statistics.median(os.path.getsize(path) for path in found) / 1024
    notes = [
        f"{asked.count} images (median file {size:.0f} KiB) decoded to 256 px, network at 224 px, batches of "
        f"{asked.batch}; median of {asked.repeats} turns",
        "bare, predict, decoding: images a second; decoding alone is by as many threads as CPUs",
        "ratio: from files to rows over the bare forward pass; goal 0.9 where decoding is not the bottleneck",
    ]
    name = "predict" if asked.device == "cpu" else "predict_cuda"
    print(leave(name, "Predictions from files against the bare forward pass", rows, notes))


def _measured(backbone: str, paths: list[str], batch: int, repeats: int, device: str) -> dict[str, Any]:
    model = _model(backbone, device)
    pixels = np.stack([read_pixels(path, model.config.data) for path in paths])

    def bare() -> None:
        with torch.inference_mode():
            for start in range(0, len(pixels), batch):
                images = torch.from_numpy(pixels[start : start + batch]).to(device)
                model.network(evaluation_view(images, size=224)).cpu()

    def ours() -> None:
        assert sum(1 for _ in model.rows(paths, batch)) == len(paths)

    def decoding() -> None:
        threads = model.threads
        for _ in in_advance(lambda path: read_pixels(path, model.config.data), paths, threads=threads, ahead=batch):
            pass

    bare()  # warm
    seconds: dict[str, list[tuple[float, float]]] = {"bare": [], "ours": [], "decoding": []}
    for _ in range(repeats):
        for name, work in (("bare", bare), ("ours", ours), ("decoding", decoding)):
            seconds[name].append(_seconds(work))
    of_wall, of_cpu = (
        statistics.median(bare[kind] / ours[kind] for bare, ours in zip(seconds["bare"], seconds["ours"], strict=True))
        for kind in (0, 1)
    )
    pace = {
        name: f"{len(paths) / statistics.median(wall for wall, _ in times):,.0f}" for name, times in seconds.items()
    }
    return {
        "network": backbone,
        "bare": pace["bare"],
        "predict": pace["ours"],
        "decoding": pace["decoding"],
        "ratio": f"{of_wall:.2f}",
        "ratio of CPU time": f"{of_cpu:.2f}",
    }


def _seconds(work: Callable[[], None]) -> tuple[float, float]:
    """Of wall, and of CPU by all threads of this process."""
    began = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began[0], time.process_time() - began[1]


def _model(backbone: str, device: str) -> Model:
    torch.manual_seed(0)
    small = {"data.image_size": 224, "data.resize": 256, "optim.precision": "float32"}
    config = TrialConfig().replace({"model.backbone": backbone, "model.weights": "none", **small})
    head = torch.nn.Linear(feature_dim(backbone, 224), CLASSES)
    state = {f"encoder.{name}": value for name, value in build_encoder(backbone, "none").state_dict().items()}
    state |= {f"head.0.{name}": value for name, value in head.state_dict().items()}
    return Model(Bundle("0" * 64, config, {}, tuple(map(str, range(CLASSES))), state), device)


if __name__ == "__main__":
    main()
