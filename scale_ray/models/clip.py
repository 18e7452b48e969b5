"""CLIP (Radford et al., https://arxiv.org/abs/2103.00020) by open_clip, frozen: an image and a text encoder.

open_clip is the optional extra `clip`, and imported where a CLIP is built. A new one is an entry in CLIP_BACKBONES.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scale_ray.config import ConfigError, Precision
from scale_ray.models.backbones import WeightsError, load_weights, read_weights, reason, refuse_torchscript
from scale_ray.models.student import Student, widen

_WEIGHTS_FILE = "open_clip_model.safetensors"


@dataclass(frozen=True)
class ClipBackbone:
    """One CLIP.

    Args:
        name: open_clip's, of its configuration; empty where `config` is given.
        openai: the Hugging Face repository with OpenAI's weights, or None where there are none.
        config: what open_clip's CLIP is built from, where open_clip has no such configuration.
    """

    name: str = ""
    openai: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


# OpenAI trained with an approximation of GELU that only the `quickgelu` configurations have.
CLIP_BACKBONES: dict[str, ClipBackbone] = {
    "clip_rn50": ClipBackbone("RN50-quickgelu", "timm/resnet50_clip.openai"),
    "clip_vit_b16": ClipBackbone("ViT-B-16-quickgelu", "timm/vit_base_patch16_clip_224.openai"),
    # For tests and dry runs: a ResNet and a transformer of the same kind, in milliseconds. There are no weights of it.
    "clip_tiny": ClipBackbone(
        config={
            "embed_dim": 32,
            "quick_gelu": True,
            "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32},
            "text_cfg": {"width": 32, "heads": 2, "layers": 2},
        }
    ),
}


def check_clip(backbone: str, weights: str) -> None:
    """Refuse, before any compute, what cannot be built here.

    Raises:
        ConfigError: open_clip is not installed.
        WeightsError: `openai` for a CLIP that has none, a file that is not there, or one of TorchScript.
    """
    if importlib.util.find_spec("open_clip") is None:
        raise ConfigError(f"model.backbone {backbone!r} needs open_clip: pip install 'scale-ray[clip]'")
    if weights == "openai":
        if CLIP_BACKBONES[backbone].openai is None:
            raise WeightsError(f"model.weights: {backbone!r} has no weights by OpenAI: write 'none' or a file's path")
    elif weights != "none":
        if not Path(weights).is_file():
            raise WeightsError(
                f"model.weights: no file {weights!r}: write 'openai', 'none' or the path of a state dict"
            )
        refuse_torchscript(Path(weights))


class Encoded(NamedTuple):
    """Of B images."""

    features: Tensor  # (B, E), L2-normalised, float32 or better
    stages: list[Tensor]  # (B, C, H', W') after every stage: a ResNet's four, a transformer's blocks


class FrozenClip(nn.Module):
    """A CLIP that never learns: always in evaluation mode, without gradients of its own, and in no state dict.

    A state dict that is loaded needs none of it, so a checkpoint holds what is learnt alone; the weights' name, or
    their file's digest, is part of a trial's identity. Gradients pass through the text encoder to a prompt's tokens.

    Args:
        backbone: a name in CLIP_BACKBONES.
        weights: `openai` downloads, `none` draws them from a seed of their own: a network that is never trained is the
            same for every trial's seed, or the file of a state dict in open_clip's names.

    Raises:
        ConfigError: open_clip is not installed.
        WeightsError: the weights cannot be downloaded, read, or are of another architecture.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, backbone: str, weights: str):
        check_clip(backbone, weights)
        import open_clip
        from open_clip import constants

        super().__init__()
        entry = CLIP_BACKBONES[backbone]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            config = entry.config or open_clip.get_model_config(entry.name)
            self.model = open_clip.CLIP(**config)
        if weights != "none":
            path = _download(entry.openai) if weights == "openai" and entry.openai else Path(weights)
            load_weights(self.model, read_weights(path), str(path))
        self.tokenizer = open_clip.SimpleTokenizer(context_length=self.model.context_length)
        # Views are normalised for ImageNet's networks; this undoes it and does it CLIP's way, in one go.
        std = torch.tensor(constants.OPENAI_DATASET_STD)
        shift = torch.tensor(constants.IMAGENET_MEAN) - torch.tensor(constants.OPENAI_DATASET_MEAN)
        self.register_buffer("scale", (torch.tensor(constants.IMAGENET_STD) / std).view(3, 1, 1), persistent=False)
        self.register_buffer("shift", (shift / std).view(3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()
        self.register_state_dict_post_hook(_leave_out)
        self.register_load_state_dict_pre_hook(_fill_in)

    @property
    def feature_dim(self) -> int:
        """E, of images and texts alike."""
        return int(self.model.text_projection.shape[1])

    @property
    def stage_channels(self) -> list[int]:
        """C of every stage's feature map."""
        return [stage.shape[1] for stage in self(torch.zeros(1, 3, *self.image_size), stages=True).stages]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels of what it sees."""
        size = self.model.visual.image_size
        return (size, size) if isinstance(size, int) else tuple(size)

    @property
    def token_dim(self) -> int:
        """W, of a token's embedding."""
        return int(self.model.token_embedding.embedding_dim)

    @property
    def temperature(self) -> Tensor:
        """What cosine similarities are divided by; CLIP's own."""
        return (-self.model.logit_scale).exp()

    def train(self, mode: bool = True) -> Self:
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor, *, stages: bool = False) -> Encoded:
        """What CLIP sees in images (B, 3, H, W) of any size; the stages' feature maps where asked for."""
        images = self.prepare(images)
        if not stages:
            return Encoded(F.normalize(widen(self.model.visual(images)), dim=1), [])
        found = self.model.visual.forward_intermediates(images)
        maps = found["image_intermediates"]
        if hasattr(self.model.visual, "stem"):  # a ResNet's first is the stem's
            maps = maps[1:]
        return Encoded(F.normalize(widen(found["image_features"]), dim=1), [widen(each) for each in maps])

    @torch.no_grad()
    def class_features(self, classes: Sequence[str], *, ensemble: bool = False) -> Tensor:
        """Features (K, E), L2-normalised, of "a photo of a {class}."; or the mean of OpenAI's 80 such prompts."""
        import open_clip

        columns = open_clip.build_zero_shot_classifier(
            self.model,
            self.tokenizer,
            classnames=classes,
            templates=open_clip.OPENAI_IMAGENET_TEMPLATES if ensemble else ("a photo of a {}.",),
            device=self.model.logit_scale.device,
        )
        return columns.T.contiguous()

    def encode_prompts(self, tokens: Tensor, ends: Tensor) -> Tensor:
        """Features (N, E), L2-normalised, of texts whose tokens are given as vectors.

        Args:
            tokens: (N, L, W); differentiable.
            ends: (N,) place of each text's end token, from which CLIP reads the text's feature.
        """
        model, length = self.model, tokens.shape[1]
        # No token sees a later one, so what follows the last end is left out: L may be less than CLIP's 77.
        states = model.transformer(
            tokens + model.positional_embedding[:length], attn_mask=model.attn_mask[:length, :length]
        )
        states = model.ln_final(states)
        features = states[torch.arange(len(states), device=states.device), ends] @ model.text_projection
        return F.normalize(widen(features), dim=1)

    def prepare(self, images: Tensor) -> Tensor:
        """CLIP's normalisation and size."""
        images = images * self.scale + self.shift
        if images.shape[2:] != self.image_size:
            images = F.interpolate(images, self.image_size, mode="bilinear", antialias=True)
        return images


class ClassPrompts(nn.Module):
    """Prompts of K classes with room for learnt context: start, context, the class's name, a full stop, end.

    Args:
        clip: whose tokens they are.
        classes: K names, as they are spoken.
        context: n, the tokens of context.

    Raises:
        ConfigError: a class's name and the context are longer than CLIP's texts may be.
    """

    start: Tensor
    rest: Tensor
    ends: Tensor

    def __init__(self, clip: FrozenClip, classes: Sequence[str], context: int):
        super().__init__()
        ids = clip.tokenizer([f"{name}." for name in classes])
        ends = ids.argmax(dim=1)  # the end has the highest id
        length = int(ends.max()) + 1
        limit = clip.model.context_length
        if length + context > limit:
            name = classes[int(ends.argmax())]
            raise ConfigError(
                f"class {name!r} and {context} tokens of context make {length + context} tokens, CLIP reads {limit}: "
                "shorten the class's name or the context (clip.*_tokens)"
            )
        embedded = clip.model.token_embedding(ids[:, :length])
        self.register_buffer("start", embedded[:, :1], persistent=False)
        self.register_buffer("rest", embedded[:, 1:], persistent=False)
        self.register_buffer("ends", ends + context, persistent=False)

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (M * K, L, W) and ends (M * K,) of all classes in each of M contexts (M, n, W)."""
        contexts, classes = len(context), len(self.rest)
        parts = (
            self.start.expand(contexts, -1, -1, -1),
            context[:, None].expand(-1, classes, -1, -1),
            self.rest.expand(contexts, -1, -1, -1),
        )
        return torch.cat(parts, dim=2).flatten(0, 1), self.ends.repeat(contexts)


class ClipStudent(Student):
    """A frozen CLIP and what is learnt beside it.

    Args:
        encoder: the CLIP.
        classes: K names, as folders have them: underscores are read as spaces.
        precision: `bf16` runs every forward pass under autocast; features and logits are float32.
    """

    encoder: FrozenClip

    def __init__(self, encoder: FrozenClip, classes: Sequence[str], precision: Precision):
        super().__init__()
        self.encoder = encoder
        self.classes = [name.replace("_", " ") for name in classes]
        self.feature_dim = encoder.feature_dim
        self.bf16 = precision == "bf16"

    def autocast(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=self.bf16)

    def logits(self, features: Tensor, class_features: Tensor) -> Tensor:
        """Cosine similarities over CLIP's temperature, in float32.

        Args:
            features: (B, E).
            class_features: (K, E) for all images, or (B, K, E).

        Returns:
            (B, K).
        """
        with torch.autocast(features.device.type, enabled=False):
            return (class_features @ features[:, :, None]).squeeze(2) / self.encoder.temperature


def _leave_out(module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        del state[name]


def _fill_in(module: nn.Module, state: dict[str, Any], prefix: str, *ignored: Any) -> None:
    assert isinstance(module, FrozenClip)
    state.update(module.model.state_dict(prefix=f"{prefix}model."))


def _download(repository: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, _WEIGHTS_FILE))
    except Exception as error:  # a network fails in many ways
        url = f"https://huggingface.co/{repository}/resolve/main/{_WEIGHTS_FILE}"
        raise WeightsError(
            f"model.weights: cannot download {url} ({reason(error)}): fetch that file where there is a network, "
            "and give its path as model.weights"
        ) from error
