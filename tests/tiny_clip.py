"""A small CLIP that knows the classes of a few domains by name, as a real one knows the world.

    PYTHONPATH=. python tests/tiny_clip.py tiny.pth

trains one on `digits`, for `scale-ray compare --methods clip_zero_shot@clip_tiny=tiny.pth`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from scale_ray.data.decoded import open_domains
from scale_ray.data.views import evaluation_view
from scale_ray.models.clip import ClipBackbone, FrozenClip

# `clip_tiny` has a ResNet.
TINY_TRANSFORMER = ClipBackbone(
    config={
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 3, "width": 64, "head_width": 32, "patch_size": 16},
        "text_cfg": {"width": 32, "heads": 2, "layers": 2},
    }
)


def train_tiny_clip(
    root: Path | None,
    path: Path,
    domains: Sequence[str] = ("plain", "inverted"),
    steps: int = 40,
    *,
    benchmark: str = "image_folder",
    size: int = 16,
    most: int = 200,
) -> None:
    """Train a random `clip_tiny` on domains' images and their classes' prompts; save its state dict.

    Args:
        root, benchmark, size: which images, and their side in pixels; by default the textures of `tiny_root`.
        most: images of a domain at most, evenly spread over it.
    """
    torch.set_num_threads(1)  # as a trial has by default
    opened = open_domains(benchmark, domains, root=root, resize=size, corrupt="error")
    clip = FrozenClip("clip_tiny", "none")
    model = clip.model.requires_grad_(True).train()
    every = [slice(None, None, -(-len(each.labels) // most)) for each in opened]
    images = torch.cat([torch.from_numpy(each.images[few].copy()) for each, few in zip(opened, every, strict=True)])
    labels = torch.cat([torch.from_numpy(each.labels[few]) for each, few in zip(opened, every, strict=True)])
    views = clip.prepare(evaluation_view(images, size=size))
    texts = clip.tokenizer([f"a photo of a {name}." for name in opened[0].classes])
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        noisy = views + 0.3 * torch.randn(views.shape, generator=generator)
        similarity = model.encode_image(noisy, normalize=True) @ model.encode_text(texts, normalize=True).T
        loss = F.cross_entropy(similarity * model.logit_scale.exp(), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.save(model.state_dict(), path)


def train_on_digits(path: Path) -> None:
    """It knows `mnist` and `fonts`; the other domains it never saw."""
    train_tiny_clip(None, path, ("mnist", "fonts"), 60, benchmark="digits", size=32, most=300)


if __name__ == "__main__":
    train_on_digits(Path(sys.argv[1]))
