"""From a config to a cell: every name is checked and every input is digested, once and before any compute."""

from functools import cache

from scale_ray.cell import Cell
from scale_ray.config import (
    DEFAULTS,
    VARIANTS,
    BaselineConfig,
    Catalogue,
    ConfigError,
    Root,
    TrialConfig,
    absolute_weights,
    check_name,
)
from scale_ray.data.benchmarks import DataError, canonical_domain, check_benchmark
from scale_ray.data.decoded import Content, domain_content, warn_of_files
from scale_ray.data.domain_files import checked_files
from scale_ray.data.names import is_text
from scale_ray.data.remote_folders import forget_listings
from scale_ray.data.views import STRONG_VIEWS
from scale_ray.data.warn import forget_warnings, warn_once
from scale_ray.errors import shown
from scale_ray.identity import identity
from scale_ray.losses import LOSSES
from scale_ray.methods import METHODS
from scale_ray.models.backbones import canonical_backbone, has_layers
from scale_ray.models.weights import WeightsError, weights_digest
from scale_ray.stage import Stage
from scale_ray.training.entries import code_digests, forget_code


def resolve(config: TrialConfig, root: Root | None) -> Cell:
    """Check a config and name the trial by its id.

    Args:
        config: what is to be trained.
        root: folder of an image benchmark: root/domain/class/image; or where each domain is.

    Raises:
        ConfigError: see `check_trial`.
        DataError: a folder or an image's file cannot be read, the source has no labels, or every target image is a
            source image.
    """
    checked = check_trial(config)
    _check_pair(checked.data.benchmark, checked.data.source, checked.data.target, root)
    inputs = _inputs(checked, root)
    return Cell(id=identity(checked, inputs), config=checked, inputs=inputs)


def check_trial(config: TrialConfig) -> TrialConfig:
    """Refuse every name that does not exist; return the config in canonical spelling (domains, backbone, weights).

    Raises:
        ConfigError: an unknown benchmark, domain, backbone, method, loss term or view; weights that cannot be used; a
            setting that the method does not read or cannot honour.
    """
    check_benchmark(config.data.benchmark)
    check_name("method", config.method, METHODS)
    check_name("views.strong", config.views.strong, STRONG_VIEWS)
    if config.views.strong == "masked" and config.model.encoder == "frozen":
        raise ConfigError(
            "views.strong='masked' teaches an encoder to read context, and model.encoder is 'frozen': train the "
            "encoder, or choose another strong view"
        )
    for term in config.losses.terms:
        check_name("loss term", term, LOSSES)
    METHODS[config.method].check_backbone(config)
    _check_layer_decay(config)
    _check_head(config)
    _check_baseline(config)
    _check_variants(config)
    METHODS[config.method].check(config)
    domains = {
        role: canonical_domain(config.data.benchmark, config.value(f"data.{role}")) for role in ("source", "target")
    }
    changes = {f"data.{role}": name for role, name in domains.items() if name != config.value(f"data.{role}")}
    if (backbone := canonical_backbone(config.model.backbone)) != config.model.backbone:
        changes["model.backbone"] = backbone
    weights = absolute_weights(config.model.weights)  # because trials may run elsewhere
    if not is_text(weights):
        raise ConfigError(
            f"model.weights: {shown(weights)}: this path is not UTF-8, so no record can name it: rename it"
        )
    if weights != config.model.weights:
        changes["model.weights"] = weights
    return config.replace(changes) if changes else config


def _check_layer_decay(config: TrialConfig) -> None:
    """Refuse a decay over layers that nobody knows, or that do not learn."""
    decay, model = config.optim.layer_decay, config.model
    if decay == 1 or (model.encoder == "trained" and has_layers(model.backbone, config.data.image_size)):
        return
    raise ConfigError(
        f"optim.layer_decay is {decay:g}, which only a trained encoder of timm with ordered layers reads, and not "
        f"{model.label!r}: leave it at 1"
    )


def _check_head(config: TrialConfig) -> None:
    """Refuse a head without a layer that could adapt to the target."""
    if config.model.head == "linear" and METHODS[config.method].reads_target(config):
        raise ConfigError(
            f"model.head is 'linear', and {config.method!r} adapts layers below the last Linear to the target: set it "
            "to 'mlp'"
        )


def _check_baseline(config: TrialConfig) -> None:
    """Refuse a setting that the method would silently ignore."""
    usual, reads = DEFAULTS.baseline, METHODS[config.method].reads
    for name in BaselineConfig.model_fields:
        given = getattr(config.baseline, name)
        if name not in reads and given != getattr(usual, name):
            readers = ", ".join(method for method, entry in METHODS.items() if name in entry.reads)
            raise ConfigError(
                f"baseline.{name} is {given}, which method {config.method!r} does not read ({readers} do): leave it at "
                f"{getattr(usual, name)}"
            )


def _check_variants(config: TrialConfig) -> None:
    """Refuse a setting that would give a row of its own to a training that does not read it."""
    for path in _unread_variants(config):
        raise ConfigError(
            f"{path} is {config.value(path)!r}, which {config.approach!r} does not read: leave it at "
            f"{DEFAULTS.value(path)!r}"
        )


def _unread_variants(config: TrialConfig) -> list[str]:
    """Paths of VARIANTS that have a value other than the usual one and that the training does not read."""
    method = METHODS[config.method]
    return [
        path
        for path, variant in VARIANTS.items()
        if variant.term is None
        and not path.startswith("baseline.")  # see `_check_baseline`
        and config.value(path) in variant.written
        and not method.reads_variant(config, path)
    ]


def without_unread(config: TrialConfig, base: TrialConfig, *, of_methods: bool = True) -> TrialConfig:
    """A cell of a study, without the settings of its base that the cell does not read.

    Args:
        config: the cell's.
        base: the study's.
        of_methods: whether the study is one of several methods, so that a setting of the baselines is for those that
            read it. Otherwise such a setting of a method that does not is a mistake: see `check_trial`.
    """
    if config.method not in METHODS:
        return config
    unread = [path for path in _unread_variants(config) if config.value(path) == base.value(path)]
    if of_methods:
        reads = METHODS[config.method].reads
        unread += [
            path
            for path in (f"baseline.{name}" for name in BaselineConfig.model_fields if name not in reads)
            if config.value(path) == base.value(path) != DEFAULTS.value(path)
        ]
    return config.replace({path: DEFAULTS.value(path) for path in unread}) if unread else config


def _inputs(config: TrialConfig, root: Root | None) -> dict[str, str]:
    """Digests of everything that a trial reads, by role."""
    inputs = {
        role: _content(config.data.benchmark, config.value(f"data.{role}"), root).digest
        for role in ("source", "target")
    }
    weights = weights_digest(config.model.weights)
    return inputs | ({} if weights is None else {"weights": weights}) | code_digests(config)


def forget_inputs() -> None:
    """Digest data and source again: they may have changed since this process digested them."""
    forget_listings()
    _content.cache_clear()
    _check_pair.cache_clear()
    forget_warnings()
    forget_code()


@cache
def _content(benchmark: str, domain: str, root: Root | None) -> Content:
    """`domain_content`, computed once until `forget_inputs`: a study of many cells has few domains."""
    return domain_content(benchmark, domain, root=root)


@cache
def _check_pair(benchmark: str, source: str, target: str, root: Root | None) -> None:
    """Refuse domains that cannot be a pair, before any image is read.

    Then refuse a target whose images are all in the source, such as a copy or a link, and say it if some are: the
    accuracy on them is that on training images.
    """
    where = f"--root {shown(root or '')}" if not isinstance(root, Catalogue) else f"target {shown(target)}"
    if benchmark != "digits":
        found = checked_files(benchmark, [source, target], root)
        warn_of_files(benchmark, found, root)
        if found[source].labels is None:
            raise DataError(
                f"{shown(found[source].where)}: source {source!r} has no labels: choose a domain that has some"
            )
    labelled, images = set(_content(benchmark, source, root).images), _content(benchmark, target, root).images
    shared = sum(image in labelled for image in images)
    if shared and shared == len(images):
        raise DataError(
            f"{where}: all {shared:,} images of target {target!r} are also in source {source!r} (a "
            "copy or a link?): choose another domain as the target"
        )
    if shared:
        warn_once(f"{shared:,} of {len(images):,} images of target {target!r} are also in source {source!r}")


def refuse_changed_weights(stage: Stage) -> None:
    """Refuse a weights file whose content is not the one that a stage was planned with.

    Raises:
        WeightsError: it is not, or it cannot be read.
    """
    if stage.weights_digest is None:
        return
    METHODS[stage.config.method].check_backbone(stage.config)
    weights = stage.config.model.weights
    if weights_digest(weights) != stage.weights_digest:
        raise WeightsError(f"model.weights: {shown(weights)} has changed since the study was planned: run again")
