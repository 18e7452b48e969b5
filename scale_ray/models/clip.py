"""Frozen CLIP models of open_clip: an image and a text encoder (Radford et al., https://arxiv.org/abs/2103.00020).

open_clip belongs to the optional extra `clip` and is imported only when a CLIP is built. To add a CLIP, add one entry
to CLIP_BACKBONES.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scale_ray.config import ConfigError, Precision
from scale_ray.extras import how_to_install
from scale_ray.models.student import Student, widen
from scale_ray.models.weights import WeightsError, load_weights, read_weights, reason, refuse_torchscript

_WEIGHTS_FILE = "open_clip_model.safetensors"


@dataclass(frozen=True)
class ClipBackbone:
    """One CLIP.

    Args:
        name: name of open_clip's configuration; empty if `config` is given.
        openai: the Hugging Face repository with OpenAI's weights; None if there are none.
        config: arguments of open_clip's CLIP, if open_clip has no such configuration.
    """

    name: str = ""
    openai: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


# OpenAI trained with an approximation of GELU, which only the `quickgelu` configurations use.
CLIP_BACKBONES: dict[str, ClipBackbone] = {
    "clip_rn50": ClipBackbone("RN50-quickgelu", "timm/resnet50_clip.openai"),
    "clip_vit_b16": ClipBackbone("ViT-B-16-quickgelu", "timm/vit_base_patch16_clip_224.openai"),
    # For tests and dry runs: a ResNet and a text transformer that are built and run in milliseconds. No weights exist.
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
    """Check, before any computation, that a CLIP can be built with these weights.

    Args:
        backbone: a name in CLIP_BACKBONES.
        weights: `openai`, `none` or the path of a state dict.

    Raises:
        ConfigError: open_clip is not installed.
        WeightsError: `openai` for a CLIP without such weights, a file that does not exist, or a TorchScript archive.
    """
    if importlib.util.find_spec("open_clip") is None:
        raise ConfigError(f"model.backbone {backbone!r} needs open_clip: {how_to_install('clip')}")
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
    """Outputs of CLIP's image encoder for B images.

    Attributes:
        features: (B, E), L2-normalised, float32 or better.
        stages: (B, C, H', W') feature maps after every stage (the four of a ResNet, the blocks of a transformer); empty
            if they were not requested.
    """

    features: Tensor
    stages: list[Tensor]


class FrozenClip(nn.Module):
    """A CLIP that never learns: it stays in evaluation mode and none of its parameters requires a gradient.

    Its parameters are left out of state dicts and are not needed for loading one, so a checkpoint contains only what is
    learnt. The name of the weights, or the digest of their file, is part of a trial's identity. Gradients do pass
    through the text encoder to the tokens of a prompt.

    Args:
        backbone: a name in CLIP_BACKBONES.
        weights: `openai` for a download, `none` for random weights, or the path of a state dict with open_clip's names.
            Random weights are drawn from a fixed seed: they are the same for every seed of a trial.

    Raises:
        ConfigError: open_clip is not installed.
        WeightsError: the weights cannot be downloaded or read, or belong to another architecture.
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
        self.tokenizer = _tokenizer(self.model.context_length)
        # Views are normalised with ImageNet's mean and deviation. One affine map replaces these by CLIP's.
        std = torch.tensor(constants.OPENAI_DATASET_STD)
        shift = torch.tensor(constants.IMAGENET_MEAN) - torch.tensor(constants.OPENAI_DATASET_MEAN)
        self.register_buffer("scale", (torch.tensor(constants.IMAGENET_STD) / std).view(3, 1, 1), persistent=False)
        self.register_buffer("shift", (shift / std).view(3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()
        self.register_state_dict_post_hook(_remove_from_state)
        self.register_load_state_dict_pre_hook(_add_to_state)

    @property
    def feature_dim(self) -> int:
        """E, the dimension of the features of images and of texts."""
        return int(self.model.text_projection.shape[1])

    @property
    def stage_channels(self) -> list[int]:
        """C of the feature map of every stage."""
        return [stage.shape[1] for stage in self(torch.zeros(1, 3, *self.image_size), stages=True).stages]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels of the image encoder's input."""
        size = self.model.visual.image_size
        return (size, size) if isinstance(size, int) else tuple(size)

    @property
    def token_dim(self) -> int:
        """W, the dimension of a token's embedding."""
        return int(self.model.token_embedding.embedding_dim)

    @property
    def temperature(self) -> Tensor:
        """CLIP's own temperature, by which cosine similarities are divided; a scalar."""
        return (-self.model.logit_scale).exp()

    def train(self, mode: bool = True) -> Self:
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor, *, stages: bool = False) -> Encoded:
        """Encode images, without gradients.

        Args:
            images: (B, 3, H, W) of any size, with ImageNet's normalisation.
            stages: also return the feature maps of the stages.
        """
        images = self.prepare(images)
        if not stages:
            return Encoded(F.normalize(widen(self.model.visual(images)), dim=1), [])
        outputs = self.model.visual.forward_intermediates(images)
        maps = outputs["image_intermediates"]
        if hasattr(self.model.visual, "stem"):  # a ResNet's first map is that of the stem
            maps = maps[1:]
        return Encoded(F.normalize(widen(outputs["image_features"]), dim=1), [widen(each) for each in maps])

    @torch.no_grad()
    def class_features(self, classes: Sequence[str], *, ensemble: bool = False) -> Tensor:
        """Features (K, E) of the classes, L2-normalised, without gradients.

        Args:
            classes: K names.
            ensemble: average over OpenAI's 80 prompts for ImageNet, instead of using "a photo of a {class}." alone.
        """
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
        """Features (N, E), L2-normalised, of texts given as token embeddings; differentiable.

        Args:
            tokens: (N, L, W).
            ends: (N,) index of the end token of each text; its state gives the feature of the text.
        """
        model, length = self.model, tokens.shape[1]
        # Attention is causal, so tokens after the last end token are not needed: L may be less than CLIP's 77.
        states = model.transformer(
            tokens + model.positional_embedding[:length], attn_mask=model.attn_mask[:length, :length]
        )
        states = model.ln_final(states)
        features = states[torch.arange(len(states), device=states.device), ends] @ model.text_projection
        return F.normalize(widen(features), dim=1)

    def prepare(self, images: Tensor) -> Tensor:
        """Convert images (B, 3, H, W) from ImageNet's normalisation to CLIP's, and resize them to CLIP's input size."""
        images = images * self.scale + self.shift
        if images.shape[2:] != self.image_size:
            images = F.interpolate(images, self.image_size, mode="bilinear", antialias=True)
        return images


class ClassPrompts(nn.Module):
    """Prompts of K classes with learnt context: start token, context, class name, full stop, end token.

    Args:
        clip: gives the tokeniser and the embeddings.
        classes: K names in natural language.
        context: n, the number of context tokens.

    Raises:
        ConfigError: a class name and the context together exceed the length of CLIP's texts.
    """

    start: Tensor
    rest: Tensor
    ends: Tensor

    def __init__(self, clip: FrozenClip, classes: Sequence[str], context: int):
        super().__init__()
        ids = clip.tokenizer([f"{name}." for name in classes])
        ends = ids.argmax(dim=1)  # the end token has the highest id
        length = int(ends.max()) + 1
        limit = clip.model.context_length
        if length + context > limit:
            name = classes[int(ends.argmax())]
            raise ConfigError(
                f"class {name!r} and {context} tokens of context make {length + context} tokens, but CLIP reads "
                f"{limit}: shorten the class name, or lower the method's baseline.*_tokens"
            )
        embedded = clip.model.token_embedding(ids[:, :length])
        self.register_buffer("start", embedded[:, :1], persistent=False)
        self.register_buffer("rest", embedded[:, 1:], persistent=False)
        self.register_buffer("ends", ends + context, persistent=False)

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """The prompts of all K classes with each of M contexts, (M, n, W), or (M, K, n, W) with one for each class.

        Returns:
            Token embeddings (M * K, L, W) and indices of the end tokens (M * K,), context by context.
        """
        contexts, classes = len(context), len(self.rest)
        context = context[:, None] if context.ndim == 3 else context
        parts = (
            self.start.expand(contexts, -1, -1, -1),
            context.expand(-1, classes, -1, -1),
            self.rest.expand(contexts, -1, -1, -1),
        )
        return torch.cat(parts, dim=2).flatten(0, 1), self.ends.repeat(contexts)


class ClipStudent(Student):
    """Base class of students on a frozen CLIP.

    Args:
        encoder: the CLIP.
        classes: K names, as folders are named; underscores become spaces.
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
        """The context of every forward pass: bfloat16 if the precision is `bf16`, otherwise without effect."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.bf16)

    def logits(self, features: Tensor, class_features: Tensor) -> Tensor:
        """Cosine similarities divided by CLIP's temperature, in float32.

        Args:
            features: (B, E) of images, L2-normalised.
            class_features: (K, E) for all images, or (B, K, E) for each image; L2-normalised.

        Returns:
            (B, K).
        """
        with torch.autocast(features.device.type, enabled=False):
            return (class_features @ features[:, :, None]).squeeze(2) / self.encoder.temperature


def _remove_from_state(module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        del state[name]


def _add_to_state(module: nn.Module, state: dict[str, Any], prefix: str, *ignored: Any) -> None:
    assert isinstance(module, FrozenClip)
    state.update(module.model.state_dict(prefix=f"{prefix}model."))


@cache
def _tokenizer(length: int) -> Any:
    """CLIP's tokenizer, which is read from a file of 49,000 merges once in a process."""
    import open_clip

    return open_clip.SimpleTokenizer(context_length=length)


def _download(repository: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, _WEIGHTS_FILE))
    except Exception as error:  # a download fails with many types of error
        url = f"https://huggingface.co/{repository}/resolve/main/{_WEIGHTS_FILE}"
        raise WeightsError(
            f"model.weights: cannot download {url} ({reason(error)}): download that file on another machine and set "
            "model.weights to its path"
        ) from error
