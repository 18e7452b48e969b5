"""What every test shares."""

import gc
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from s3_server import S3Server, s3_server
from tiny_images import make_images
from tiny_trial import TINY
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from scale_ray import BACKBONES, LOSSES, METHODS, STRONG_VIEWS
from scale_ray.config import Execution, TrialConfig
from scale_ray.store import Store
from scale_ray.training.trial import run_trial

# Collecting thousands of tests makes millions of objects that stay: by default, a quarter of its time goes into looking
# for garbage among them.
_USUAL = gc.get_threshold()
gc.set_threshold(100_000, 50, 50)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(*_USUAL)


# Hypothesis fails an example that takes longer than 200 ms, which any example does on a busy machine.
settings.register_profile("any speed", deadline=None)
settings.load_profile("any speed")

REGISTRIES: list[dict] = [BACKBONES, LOSSES, METHODS, STRONG_VIEWS]

# Folders whose tests start Ray.
USES_RAY = {"sweep", "tuning", "cluster", "service"}


class ByFile(LoadScopeScheduling):
    """With several processes (`-n`): the tests of a file in one, for their fixtures.

    Not `--dist loadfile`, which has no order of its own: here the files that take longest come first.
    """

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)  # nobody calls it under `-p no:xdist`
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    config.option.loadscopereorder = False  # files are handed out as collected, not by their number of tests
    return ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With several processes, Ray's tests begin first, since they take longest, and the others fill the rest."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: (item.path.parent.name not in USES_RAY, not item.path.stem.endswith("_on_ray")))


@pytest.fixture(autouse=True)
def _registries_as_they_were() -> Iterator[None]:
    """What a test adds to a registry, as users do, is gone at its end."""
    before = [dict(registry) for registry in REGISTRIES]
    yield
    for registry, entries in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(entries)


@pytest.fixture(scope="session", autouse=True)
def _cache_of_this_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests never touch the user's cache; `digits` is drawn once a session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCALE_RAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _rays_of_this_session() -> Iterator[None]:
    """A cluster that one process of the tests starts is found by none of another's studies."""
    with (
        tempfile.TemporaryDirectory(prefix="sr", dir="/tmp", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("RAY_TMPDIR", folder)  # short, because Ray makes sockets below it
        yield


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """root/domain/class/image.png: three textures with noise; one domain is the first's negative, one is darker."""
    root = tmp_path_factory.mktemp("tiny")
    make_images(root, ["plain", "inverted", "dark"], [12, 16, 20])
    return root


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    """moto's S3 on loopback, and the environment that leads to it."""
    with s3_server() as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store may be and nothing is yet, on each kind of file system."""
    if request.param == "folder":
        return str(tmp_path / "store")
    server: S3Server = request.getfixturevalue("s3")
    return server.new_url()


@pytest.fixture
def tiny_config() -> TrialConfig:
    return TrialConfig().replace(TINY)


@pytest.fixture(scope="session")
def lenet_weights(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was trained on `plain` and kept: its encoder's weights."""
    config = TrialConfig().replace(
        TINY | {"method": "source_only", "losses.terms": "ce", "optim.steps": 60, "evaluate_every": 60}
    )
    store = Store(tmp_path_factory.mktemp("lenet"), create=True)
    record = run_trial(config, Execution(root=tiny_root, device="cpu", keep_model=True), store)
    return Path(store.model_location(record.id))


@pytest.fixture
def frozen_config(tiny_config: TrialConfig, lenet_weights: Path) -> TrialConfig:
    """The tiny trial on features of a frozen encoder."""
    return tiny_config.replace(
        {
            "model.weights": str(lenet_weights),
            "model.encoder": "frozen",
            "model.frozen_views": 2,
            "model.bottleneck_dim": 12,
        }
    )


@pytest.fixture(scope="session")
def clip_weights(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a `clip_tiny` that knows the classes of `plain` and `inverted` by name, and never saw `dark`."""
    from tiny_clip import train_tiny_clip  # open_clip takes seconds to import

    path = tmp_path_factory.mktemp("clip") / "tiny.pth"
    train_tiny_clip(tiny_root, path)
    return path


@pytest.fixture
def clip_config(tiny_config: TrialConfig, clip_weights: Path) -> TrialConfig:
    """The tiny trial on that CLIP; a method is still to be named."""
    return tiny_config.replace(
        {"losses.terms": "ce", "model.backbone": "clip_tiny", "model.weights": str(clip_weights)}
    )
