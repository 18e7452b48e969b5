"""Names of timm's encoders, the sizes that they take, and where their weights come from."""

import copy
import http.server
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from quick import slow_but
from torch import Tensor

from scale_ray.config import ConfigError, ModelConfig, TrialConfig
from scale_ray.data.defaults import base_config
from scale_ray.models import WeightsError, build_encoder
from scale_ray.models.backbones import canonical_backbone, check_backbone
from scale_ray.models.timm_encoders import facts
from scale_ray.timm_names import size_fields

TINY = "timm:test_vit.r160_in1k"
SIDE = 32


def test_a_name_stands_for_timms_default_tag_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert canonical_backbone("timm:resnet50") == "timm:resnet50.a1_in1k"
    assert canonical_backbone("timm:resnet50.a2_in1k") == "timm:resnet50.a2_in1k"
    assert canonical_backbone("resnet50") == "resnet50"
    assert canonical_backbone("timm:davit_large") == canonical_backbone("timm:davit_large.") == "timm:davit_large"
    other = timm.models.get_pretrained_cfg("resnet50.a2_in1k")
    monkeypatch.setattr(timm.models, "get_pretrained_cfg", lambda name: other)  # another default, some day
    assert canonical_backbone("timm:resnet50") == "timm:resnet50.a2_in1k"
    assert canonical_backbone("timm:resnet50.a1_in1k") == "timm:resnet50.a1_in1k"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet5o", "timm has no architecture 'resnet5o'; the nearest are .*resnet50"),
        ("timm:", "timm has no architecture ''; the nearest are "),
        ("timm:hf-hub:timm/resnet50", "timm has no architecture 'hf-hub:timm/resnet50'; the nearest are "),
        ("timm:resnet50.a1_in2k", "timm has no tag of 'resnet50' 'a1_in2k'; the nearest are a1_in1k"),
        ("tim:resnet50", r"unknown model\.backbone 'tim:resnet50': .*known: lenet, .*timm:NAME"),
    ],
)
def test_a_wrong_name_gets_one_line_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        check_backbone(ModelConfig(backbone=name, weights="none"), 224)
    assert "\n" not in str(refused.value)


def test_a_missing_timm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"'timm:resnet50' needs timm: pip install .*\[timm\]"):
        check_backbone(ModelConfig(backbone="timm:resnet50", weights="none"), 224)


@pytest.mark.parametrize(
    ("name", "size", "resize"),
    [
        ("vit_base_patch16_224.augreg_in21k", 224, 248),  # 224 / 0.9 = 248.9
        ("vit_small_patch14_dinov2", 518, 518),
        ("tf_efficientnet_lite0", 224, 256),
        ("swin_base_patch4_window12_384", 384, 384),
        ("volo_d4_448", 448, 448),  # crop_pct 1.15: a margin
    ],
)
def test_images_have_the_size_of_timms_data_config_unless_another_is_named(name: str, size: int, resize: int) -> None:
    data = base_config("pacs", {"model.backbone": f"timm:{name}"}).data
    assert (data.image_size, data.resize) == (size, resize)
    named = base_config("pacs", {"model.backbone": f"timm:{name}", "data.image_size": 112, "data.resize": 128}).data
    assert (named.image_size, named.resize) == (112, 128)
    ours = base_config("pacs", {"model.backbone": "resnet50"}).data
    assert (ours.image_size, ours.resize) == (128, 144)


@pytest.mark.slow
def test_every_encoder_of_timm_has_a_size_and_one_canonical_name() -> None:
    for name in timm.list_models():
        canonical = canonical_backbone(f"timm:{name}")
        assert canonical_backbone(canonical) == canonical
        TrialConfig().replace(size_fields(canonical))


@pytest.mark.parametrize(
    ("name", "side", "message"),
    [
        ("vit_small_patch14_dinov2.lvd142m", 160, "patches of 14 px: set data.image_size to 154 or 168, not 160"),
        ("efficientformer_l1.snap_dist_in1k", 96, r"cannot encode images of 96 px \(.*: set data.image_size to 224"),
        ("gemma4_vit_167m_enc", 224, r"cannot encode images of 224 px \(.*\): "),
    ],
)
def test_a_size_that_it_cannot_take_is_one_line_before_any_compute(name: str, side: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        check_backbone(ModelConfig(backbone=f"timm:{name}", weights="none"), side)
    assert "\n" not in str(refused.value)


def test_what_is_known_of_an_encoder_takes_no_random_numbers() -> None:
    def state() -> dict[str, Tensor]:
        torch.manual_seed(1)
        return build_encoder(TINY, "none", SIDE).state_dict()

    facts.cache_clear()
    first, again = state(), state()  # the second finds the facts in the cache
    assert all(torch.equal(value, again[key]) for key, value in first.items())


CONVNEXT = "test_convnext.r160_in1k"


@pytest.mark.parametrize("name", slow_but([CONVNEXT], ["test_vit.r160_in1k", "tf_efficientnet_lite0.in1k", CONVNEXT]))
def test_it_compiles_as_a_whole(name: str) -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable:
        graphs.append(graph)
        return graph.forward

    encoder = build_encoder(f"timm:{name}", "none", SIDE).eval()
    images = torch.randn(2, 3, SIDE, SIDE)
    expected = encoder(images)
    encoder.compile(backend=backend)
    torch.testing.assert_close(encoder(images), expected, rtol=1e-4, atol=1e-5)
    assert len(graphs) == 1


@pytest.fixture(scope="module")
def whole() -> torch.nn.Module:
    """timm's model at its own size of 160 px, with a classifier."""
    torch.manual_seed(7)
    return timm.create_model("test_vit.r160_in1k")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_another_size_is_read_as_timm_reads_it(
    suffix: str, whole: torch.nn.Module, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The classifier is left out, and position embeddings are interpolated."""
    path = tmp_path / f"w{suffix}"
    (safetensors.torch.save_file if suffix == ".safetensors" else torch.save)(whole.state_dict(), path)
    with caplog.at_level(logging.INFO, logger="scale_ray.models.timm_encoders"):
        encoder = build_encoder(TINY, str(path), SIDE)
    assert caplog.messages[-1].endswith("in the file but unused: head")
    resized = copy.deepcopy(whole)
    resized.set_input_size(SIDE)  # timm's own interpolation
    expected = resized.state_dict()
    for name, value in encoder.model.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    assert "state_dict" not in encoder.model.pretrained_cfg  # which a teacher would copy


@pytest.mark.parametrize("name", ["timm:test_resnet.r160_in1k", "timm:test_convnext.r160_in1k", "timm:test_vit2"])
def test_a_file_of_another_architecture_is_one_line(name: str, whole: torch.nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(whole.state_dict(), path)
    with pytest.raises(WeightsError, match=r"w\.pth: weights of another architecture than 'timm:test_") as refused:
        build_encoder(name, str(path), SIDE)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_resnet_of_timm_computes_the_bits_of_torchvisions(name: str, tmp_path: Path) -> None:
    """From the same file of torchvision, in evaluation and in training."""
    ours = build_encoder(name, "none")
    torch.save(ours.state_dict(), tmp_path / "w.pth")
    timms = build_encoder(f"timm:{name}.tv_in1k", str(tmp_path / "w.pth"), 64)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for training in (False, True):
            assert torch.equal(timms.train(training)(images), ours.train(training)(images))


def test_one_missing_tensor_is_an_error(whole: torch.nn.Module, tmp_path: Path) -> None:
    state = {name: value for name, value in whole.state_dict().items() if name != "blocks.1.attn.qkv.weight"}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"Missing key.*blocks\.1\.attn\.qkv\.weight"):
        build_encoder(TINY, str(tmp_path / "w.pth"), SIDE)


def test_a_name_without_weights_on_the_hub_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"no weights of 'timm:mixer_s32_224\.untrained': write 'none'"):
        check_backbone(ModelConfig(backbone="timm:mixer_s32_224.untrained"), 224)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(whole: torch.nn.Module) -> Iterator[str]:
    """A server that answers for one file as the hub does. Returns its URL."""
    content = safetensors.torch.save(whole.state_dict())

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            found = self.path == "/timm/test_vit.r160_in1k/resolve/main/model.safetensors"
            self.send_response(200 if found else 404)
            headers = {"X-Repo-Commit": COMMIT, "ETag": '"1"', "Content-Length": str(len(content) if found else 0)}
            for header in headers.items():
                self.send_header(*header)
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


LOAD = f"""
import sys
from scale_ray.errors import UserError
from scale_ray.models import build_encoder
try:
    print(float(build_encoder({TINY!r}, "imagenet", 160).model.pos_embed.double().sum()))
except UserError as error:
    sys.exit(str(error))
"""


def load(endpoint: str, cache: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own: huggingface_hub reads its environment when it is imported."""
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-W", "ignore", "-c", LOAD]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_weights_come_from_the_hub_and_then_from_its_cache(hub: str, whole: torch.nn.Module, tmp_path: Path) -> None:
    expected = float(whole.state_dict()["pos_embed"].double().sum())
    for endpoint in (hub, "http://127.0.0.1:9"):
        loaded = load(endpoint, tmp_path)
        assert loaded.returncode == 0, loaded.stderr
        assert float(loaded.stdout) == pytest.approx(expected, rel=1e-9)


def test_a_hub_out_of_reach_is_one_line_with_the_remedy_and_no_minute_of_waiting(tmp_path: Path) -> None:
    began = time.monotonic()
    refused = load("http://127.0.0.1:9", tmp_path)
    assert refused.returncode == 1
    assert "Retrying" not in refused.stderr
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"model.weights: cannot download the weights of {TINY!r} from https://huggingface.co/timm/")
    assert line.endswith("on another machine, and set model.weights to its path")
    assert time.monotonic() - began < 600
