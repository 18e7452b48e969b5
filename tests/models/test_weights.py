"""Weights from files and from torchvision: what loads, what is refused, and what the log says."""

import logging
import os
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torchvision import models as zoo

from scale_ray.config import ConfigError
from scale_ray.models import WeightsError, build_encoder
from scale_ray.models.weights import weights_digest

MOBILENET_FILE = Path(__file__).parents[3] / "shared/weights/mobilenet_v2_features_torchvision.pth"


def random_model(name: str) -> nn.Module:
    """A torchvision model, classifier and all, whose running statistics are not the initial ones either."""
    torch.manual_seed(5)
    model = zoo.get_model(name, weights=None)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if "running" in key:
                value.uniform_(0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="module")
def resnet18() -> nn.Module:
    return random_model("resnet18")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """name -> file with torchvision's state dict of that architecture, written once."""
    folder = tmp_path_factory.mktemp("weights")

    def save(name: str) -> Path:
        path = folder / f"{name}.pth"
        if not path.exists():
            torch.save(random_model(name).state_dict(), path)
        return path

    return save


def trunk(model: nn.Module, images: Tensor) -> Tensor:
    """What torchvision's resnet computes before pooling."""
    x = model.maxpool(model.relu(model.bn1(model.conv1(images))))
    return model.layer4(model.layer3(model.layer2(model.layer1(x))))


def assert_is(encoder: nn.Module, model: nn.Module) -> None:
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(encoder.eval()(images), trunk(model, images))


def test_a_torchvision_state_dict_gives_torchvisions_features(
    resnet18: nn.Module, saved: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = saved("resnet18")
    with caplog.at_level(logging.INFO, logger="scale_ray.models.weights"):
        encoder = build_encoder("resnet18", str(path))
    assert_is(encoder, resnet18)
    (message,) = caplog.messages
    assert message == f"{path}: 120 tensors loaded; in the file but unused: fc"


@pytest.mark.parametrize(
    "rename",
    [
        lambda state: {name: value for name, value in state.items() if not name.startswith("fc.")},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {f"module.encoder.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": state, "epoch": 90},
        lambda state: {name: value for name, value in state.items() if "num_batches_tracked" not in name},
    ],
    ids=["without fc", "of DataParallel", "of a scale_ray network", "inside a checkpoint", "of an old torch"],
)
def test_other_ways_to_save_the_same_weights(
    rename: Callable[[dict[str, Tensor]], object], resnet18: nn.Module, tmp_path: Path
) -> None:
    torch.save(rename(resnet18.state_dict()), tmp_path / "w.pth")
    assert_is(build_encoder("resnet18", str(tmp_path / "w.pth")), resnet18)


def test_the_log_says_so_where_nothing_is_unused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(build_encoder("lenet", "none").state_dict(), tmp_path / "w.pth")
    with caplog.at_level(logging.INFO, logger="scale_ray.models.weights"):
        build_encoder("lenet", str(tmp_path / "w.pth"))
    assert caplog.messages[0].endswith("in the file but unused: nothing")


def test_safetensors(resnet18: nn.Module, tmp_path: Path) -> None:
    safetensors.torch.save_file(resnet18.state_dict(), tmp_path / "w.safetensors")
    assert_is(build_encoder("resnet18", str(tmp_path / "w.safetensors")), resnet18)


@pytest.mark.parametrize(
    ("backbone", "file", "complaint"),
    [
        ("resnet50", "resnet18", "tensors missing (such as layer1.0.conv3.weight)"),
        ("resnet18", "mobilenet_v2", "100 tensors missing (such as conv1.weight)"),
        ("mobilenet_v2", "resnet18", "tensors missing (such as features.0.0.weight)"),
        # A resnet101 holds every tensor of a resnet50, and more.
        (
            "resnet50",
            "resnet101",
            "0 tensors missing, 0 of another shape, 306 too many (such as layer3.6.conv1.weight)",
        ),
        ("resnet101", "resnet50", "tensors missing (such as layer3.6.conv1.weight)"),
        ("lenet", "resnet18", "tensors missing"),
    ],
)
def test_another_architecture_is_refused(
    backbone: str, file: str, complaint: str, saved: Callable[[str], Path]
) -> None:
    path = saved(file)
    with pytest.raises(WeightsError) as refused:
        build_encoder(backbone, str(path))
    message = str(refused.value)
    assert message.startswith(f"{path}: weights of another architecture: ")
    assert complaint in message
    assert "choose the file or the backbone that fits" in message
    assert isinstance(refused.value, ConfigError)


def test_one_missing_tensor_is_enough_to_refuse(resnet18: nn.Module, tmp_path: Path) -> None:
    """Else a half-random network would train, and nobody would know."""
    state = resnet18.state_dict()
    del state["layer4.1.bn2.running_var"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"1 tensors missing \(such as layer4\.1\.bn2\.running_var\)"):
        build_encoder("resnet18", str(tmp_path / "w.pth"))


def test_one_tensor_of_another_shape_is_enough_to_refuse(resnet18: nn.Module, tmp_path: Path) -> None:
    state = resnet18.state_dict()
    state["conv1.weight"] = torch.zeros(64, 1, 7, 7)  # of a network for grey images
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"0 tensors missing, 1 of another shape \(such as conv1\.weight\)"):
        build_encoder("resnet18", str(tmp_path / "w.pth"))


class Malicious:
    """Unpickling this makes a folder."""

    def __init__(self, victim: Path):
        self.victim = victim

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.victim),)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    path, victim = tmp_path / "w.pth", tmp_path / "victim"
    torch.save({"conv1.weight": Malicious(victim)}, path)
    with pytest.raises(WeightsError, match="not a state dict that is safe to load"):
        build_encoder("resnet18", str(path))
    assert not victim.exists()
    torch.load(path, weights_only=False)  # the file is armed: an unsafe loader would have run it
    assert victim.exists()


def test_a_pickled_module_is_refused(resnet18: nn.Module, tmp_path: Path) -> None:
    torch.save(resnet18, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"not a state dict that is safe to load.*save model\.state_dict\(\)"):
        build_encoder("resnet18", str(tmp_path / "w.pth"))


def test_the_reason_does_not_advise_to_load_unsafely(resnet18: nn.Module, tmp_path: Path) -> None:
    torch.save(resnet18, tmp_path / "w.pth")
    with pytest.raises(WeightsError) as refused:
        build_encoder("resnet18", str(tmp_path / "w.pth"))
    assert "weights_only" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [[torch.zeros(1)], torch.zeros(1), {"conv1.weight": 3}, {0: torch.zeros(1)}, {}])
def test_something_else_than_a_state_dict_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"holds no state dict|tensors missing"):
        build_encoder("resnet18", str(tmp_path / "w.pth"))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"<html>404</html>", b"\x80\x02", b"\x80\x02c\xff\xfe\n", b"PK\x03\x04", bytes(range(256))],
    ids=repr,
)
def test_bytes_that_are_no_weights_are_refused(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="not a state dict that is safe to load") as refused:
        build_encoder("lenet", str(path))
    assert str(refused.value).startswith(f"{path}: ")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(share: float, suffix: str, tmp_path: Path) -> None:
    path, state = tmp_path / f"w{suffix}", build_encoder("lenet", "none").state_dict()
    if suffix == ".pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(WeightsError, match="not a state dict that is safe to load"):
        build_encoder("lenet", str(path))


@pytest.mark.parametrize("place", ["absent.pth", "."], ids=["missing", "a folder"])
def test_a_file_that_is_not_there(place: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"model\.weights: no file .*: write 'none', 'imagenet' or the path"):
        build_encoder("resnet18", str(tmp_path / place))


def test_there_are_no_imagenet_weights_of_lenet() -> None:
    with pytest.raises(WeightsError, match="'lenet' has no ImageNet weights: write 'none' or a file's path"):
        build_encoder("lenet", "imagenet")


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No network, here or elsewhere: every request goes to a closed port. Returns torch.hub's folder, empty."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it would keep the proxies, also for later tests
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def test_imagenet_weights_without_a_network_name_the_remedy(offline: Path) -> None:
    with pytest.raises(WeightsError) as refused:
        build_encoder("resnet18", "imagenet")
    message = str(refused.value)
    assert "cannot download https://download.pytorch.org/models/resnet18-f37072fd.pth" in message
    assert f"put that file into {offline}, or name its path: --weights FILE" in message


def test_that_remedy_works(offline: Path, resnet18: nn.Module) -> None:
    offline.mkdir(parents=True)
    torch.save(resnet18.state_dict(), offline / "resnet18-f37072fd.pth")
    assert_is(build_encoder("resnet18", "imagenet"), resnet18)


def test_a_broken_copy_of_imagenet_weights_names_its_folder(offline: Path) -> None:
    offline.mkdir(parents=True)
    (offline / "resnet18-f37072fd.pth").write_bytes(b"half a download")
    with pytest.raises(WeightsError, match="or read its copy") as refused:
        build_encoder("resnet18", "imagenet")
    assert str(offline) in str(refused.value)


def test_a_digest_stands_for_the_content_and_not_for_the_path(tmp_path: Path) -> None:
    for name, content in (("a", b"x"), ("b", b"x"), ("c", b"y")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (weights_digest(str(tmp_path / name)) for name in "abc")
    assert a == b == "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    assert c != a
    assert weights_digest("none") is weights_digest("imagenet") is None


@pytest.mark.skipif(not MOBILENET_FILE.exists(), reason=f"needs {MOBILENET_FILE.name}, which is not in the repository")
def test_pretrained_mobilenet_features_load(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="scale_ray.models.weights"):
        encoder = build_encoder("mobilenet_v2", str(MOBILENET_FILE))
    assert "312 tensors loaded" in caplog.messages[0]
    assert encoder.features[0][1].running_var.std() > 0.01  # trained, not the initial ones
