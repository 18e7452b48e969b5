"""A frozen CLIP: what it computes is open_clip's, its weights' origin, and what no one may change."""

import subprocess
import sys
import warnings
from pathlib import Path

import huggingface_hub.constants
import open_clip
import pytest
import torch
from tiny_clip import TINY_TRANSFORMER
from torch import Tensor

from scale_ray.config import ConfigError
from scale_ray.data import views
from scale_ray.models import WeightsError
from scale_ray.models.backbones import check_weights
from scale_ray.models.clip import CLIP_BACKBONES, ClassPrompts, FrozenClip, check_clip
from scale_ray.models.weights import read_weights

CLASSES = ["cat", "alarm clock", "screwdriver"]


@pytest.fixture(params=["clip_tiny", "transformer"])
def clip(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FrozenClip:
    monkeypatch.setitem(CLIP_BACKBONES, "transformer", TINY_TRANSFORMER)
    return FrozenClip(request.param, "none")


def images(count: int = 2, side: int = 32) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_features_are_open_clips(clip: FrozenClip) -> None:
    expected = clip.model.encode_image(clip.prepare(images()), normalize=True)
    for stages in (False, True):
        torch.testing.assert_close(clip(images(), stages=stages).features, expected)


def test_every_stage_has_a_feature_map(clip: FrozenClip) -> None:
    maps = clip(images(), stages=True).stages
    assert [each.shape[1] for each in maps] == clip.stage_channels
    assert all(each.ndim == 4 and len(each) == 2 for each in maps)
    transformer = isinstance(clip.model.visual, open_clip.transformer.VisionTransformer)
    assert [tuple(each.shape[1:]) for each in maps] == (
        [(64, 2, 2)] * 3 if transformer else [(32, 8, 8), (64, 4, 4), (128, 2, 2), (256, 1, 1)]
    )
    assert clip(images()).stages == []


def test_views_are_normalised_and_sized_as_clip_was_trained(clip: FrozenClip) -> None:
    pixels = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (
        torch.tensor(values).view(3, 1, 1)
        for values in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    )
    torch.testing.assert_close(
        clip.prepare(views.evaluation_view(pixels, size=32)), (pixels / 255 - mean) / std, rtol=0, atol=1e-6
    )
    assert clip.prepare(images(side=16)).shape == (2, 3, 32, 32)
    assert clip.prepare(images(side=48)).shape == (2, 3, 32, 32)


def test_prompts_without_context_are_plain_texts(clip: FrozenClip) -> None:
    """Cut off after the longest end, they give what open_clip gives for all 77 tokens."""
    prompts = ClassPrompts(clip, CLASSES, context=0)
    tokens, ends = prompts(torch.empty(1, 0, clip.token_dim))
    assert tokens.shape[1] == int(ends.max()) + 1 < 10
    texts = clip.tokenizer([f"{name}." for name in CLASSES])
    torch.testing.assert_close(clip.encode_prompts(tokens, ends), clip.model.encode_text(texts, normalize=True))


def test_context_stands_between_start_and_class(clip: FrozenClip) -> None:
    """The words "a photo of a" as vectors make the prompts that zero-shot uses; each context is its own."""
    words = clip.model.token_embedding(clip.tokenizer("a photo of a")[0, 1:5])
    noise = torch.randn(words.shape, generator=torch.Generator().manual_seed(0))
    features = clip.encode_prompts(*ClassPrompts(clip, CLASSES, context=4)(torch.stack([words, noise])))
    named, other = features.unflatten(0, (2, -1))
    torch.testing.assert_close(named, clip.class_features(CLASSES))
    assert not torch.allclose(other, named, atol=0.1)


def test_an_ensemble_is_the_mean_of_its_prompts(clip: FrozenClip) -> None:
    templates = open_clip.OPENAI_IMAGENET_TEMPLATES
    texts = clip.tokenizer([template("cat") for template in templates])
    mean = clip.model.encode_text(texts, normalize=True).mean(dim=0)
    found = clip.class_features(CLASSES, ensemble=True)
    torch.testing.assert_close(found[0], mean / mean.norm())
    assert not torch.allclose(found, clip.class_features(CLASSES), atol=1e-3)


def test_gradients_reach_the_context_and_nothing_of_clip(clip: FrozenClip) -> None:
    context = torch.randn(1, 2, clip.token_dim, generator=torch.Generator().manual_seed(0)).requires_grad_()
    clip.encode_prompts(*ClassPrompts(clip, CLASSES, context=2)(context))[0, 0].backward()
    assert context.grad is not None
    assert (context.grad != 0).any(dim=2).all()
    assert all(parameter.grad is None for parameter in clip.parameters())


def test_a_prompt_that_is_too_long_is_refused(clip: FrozenClip) -> None:
    with pytest.raises(
        ConfigError, match=r"class 'alarm clock' and 73 tokens of context make 78 tokens, but CLIP reads 77"
    ):
        ClassPrompts(clip, ["cat", "alarm clock"], context=73)
    ClassPrompts(clip, ["cat", "alarm clock"], context=72)


def test_it_stays_in_evaluation_mode_and_out_of_state_dicts(clip: FrozenClip) -> None:
    whole = torch.nn.ModuleDict({"clip": clip, "head": torch.nn.Linear(2, 2)}).train()
    assert not any(module.training for module in clip.modules())
    assert set(whole.state_dict()) == {"head.weight", "head.bias"}
    before = {name: value.clone() for name, value in clip.model.state_dict().items()}
    whole.load_state_dict({"head.weight": torch.ones(2, 2), "head.bias": torch.ones(2)})
    assert (whole["head"].weight == 1).all()
    assert all(torch.equal(value, before[name]) for name, value in clip.model.state_dict().items())
    with pytest.raises(RuntimeError, match="Missing key"):
        whole.load_state_dict({"head.weight": torch.ones(2, 2)})


def test_random_weights_are_the_same_for_every_seed_and_draw_nothing() -> None:
    torch.manual_seed(1)
    one, drawn = FrozenClip("clip_tiny", "none"), torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), drawn)
    two = FrozenClip("clip_tiny", "none")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_local_file_is_taken(tmp_path: Path, suffix: str) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(3)
    other = open_clip.CLIP(**CLIP_BACKBONES["clip_tiny"].config)
    path = tmp_path / f"clip.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(other.state_dict(), path)
    clip = FrozenClip("clip_tiny", str(path))
    expected = other.eval().encode_image(clip.prepare(images()), normalize=True)
    torch.testing.assert_close(clip(images()).features, expected)


@pytest.fixture
def torchscript(tmp_path: Path) -> Path:
    """A small CLIP as OpenAI publishes its own: half precision, in an archive of TorchScript."""
    torch.manual_seed(3)
    model = open_clip.CLIP(**CLIP_BACKBONES["clip_tiny"].config).eval()
    texts = torch.zeros(1, model.context_length, dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        traced = torch.jit.trace(model, (images(1), texts), strict=False, check_trace=False)
        torch.jit.save(traced.half(), tmp_path / "RN50.pt")
    return tmp_path / "RN50.pt"


def test_openais_torchscript_is_refused_before_any_compute(torchscript: Path) -> None:
    for refused in (
        lambda: check_clip("clip_rn50", str(torchscript)),
        lambda: check_weights("resnet50", str(torchscript)),
        lambda: read_weights(torchscript),
    ):
        with pytest.raises(WeightsError, match=r"RN50\.pt: a TorchScript archive, which contains code.*python -c"):
            refused()


def test_the_remedy_for_torchscript_makes_weights_that_are_taken(torchscript: Path) -> None:
    with pytest.raises(WeightsError) as refused:
        check_clip("clip_tiny", str(torchscript))
    _, code, _ = str(refused.value).split('"')
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=torchscript.parent, check=True)
    clip = FrozenClip("clip_tiny", str(torchscript.parent / "RN50_state.pth"))
    torch.manual_seed(3)
    expected = open_clip.CLIP(**CLIP_BACKBONES["clip_tiny"].config).half().float().eval()
    texts = clip.tokenizer(CLASSES)
    torch.testing.assert_close(clip.model.encode_text(texts), expected.encode_text(texts))
    torch.testing.assert_close(clip.model.encode_image(images()), expected.encode_image(images()))


def test_a_file_of_another_architecture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.pth"
    torch.save(open_clip.CLIP(**TINY_TRANSFORMER.config).state_dict(), path)
    with pytest.raises(WeightsError, match=r"clip.pth: weights of another architecture"):
        FrozenClip("clip_tiny", str(path))


def test_weights_that_cannot_be_are_refused_before_any_compute(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no file '.*gone.pth': write 'openai', 'none' or the path"):
        check_clip("clip_rn50", str(tmp_path / "gone.pth"))
    with pytest.raises(WeightsError, match=r"'clip_tiny' has no weights by OpenAI"):
        check_clip("clip_tiny", "openai")
    check_clip("clip_rn50", "openai")


def test_offline_the_error_says_what_to_fetch_and_where_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with (
        torch.device("meta"),
        pytest.raises(
            WeightsError,
            match=r"cannot download https://huggingface.co/timm/resnet50_clip.openai/resolve/main/"
            r"open_clip_model.safetensors \(.*\): download that file on another machine and set model.weights to its ",
        ),
    ):
        FrozenClip("clip_rn50", "openai")


def test_a_missing_open_clip_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ConfigError, match=r"'clip_rn50' needs open_clip: pip install .*\[clip\]"):
        check_clip("clip_rn50", "none")


@pytest.mark.parametrize(
    ("name", "stages", "feature_dim"),
    [("clip_rn50", [256, 512, 1024, 2048], 1024), ("clip_vit_b16", [768] * 12, 512)],
)
def test_real_ones_have_openais_sizes(name: str, stages: list[int], feature_dim: int) -> None:
    with torch.device("meta"):  # shapes alone
        clip = FrozenClip(name, "none")
        assert clip.stage_channels == stages
    assert (clip.feature_dim, clip.token_dim, clip.image_size) == (feature_dim, 512, (224, 224))
    # Both were trained with the approximation of GELU that only these configurations have.
    assert any(isinstance(module, open_clip.transformer.QuickGELU) for module in clip.modules())
