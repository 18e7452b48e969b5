"""From a config to a cell: every name is checked and every input is digested, once and before any compute."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from scale_ray.cell import Cell
from scale_ray.config import BaselineConfig, ConfigError, TrialConfig, absolute_weights, check_name
from scale_ray.data.benchmarks import canonical_domain, check_benchmark
from scale_ray.data.decoded import Domain, domain_digest, open_domains
from scale_ray.data.views import STRONG_VIEWS
from scale_ray.identity import identity
from scale_ray.losses import LOSSES
from scale_ray.methods import METHODS
from scale_ray.models.backbones import weights_digest
from scale_ray.training.entries import code_digests, forget_code


def resolve(config: TrialConfig, root: Path | None) -> Cell:
    """Check a config and name the trial by its id.

    Args:
        config: what is to be trained.
        root: folder of an image benchmark: root/domain/class/image.

    Raises:
        ConfigError: see `check_trial`.
        DataError: a folder or an image's file cannot be read.
    """
    checked = check_trial(config)
    inputs = _inputs(checked, root)
    return Cell(id=identity(checked, inputs), config=checked, inputs=inputs)


def check_trial(config: TrialConfig) -> TrialConfig:
    """Refuse every name that does not exist; return the config in canonical spelling: domains, and the path of weights.

    Raises:
        ConfigError: an unknown benchmark, domain, backbone, method, loss term or view; weights that cannot be used; a
            setting that the method does not read or cannot honour.
    """
    check_benchmark(config.data.benchmark)
    check_name("method", config.method, METHODS)
    check_name("views.strong", config.views.strong, STRONG_VIEWS)
    for term in config.losses.terms:
        check_name("loss term", term, LOSSES)
    METHODS[config.method].check_backbone(config)
    _check_baseline(config)
    METHODS[config.method].check(config)
    domains = {
        role: canonical_domain(config.data.benchmark, config.value(f"data.{role}")) for role in ("source", "target")
    }
    changes = {f"data.{role}": name for role, name in domains.items() if name != config.value(f"data.{role}")}
    weights = absolute_weights(config.model.weights)  # because trials may run elsewhere
    if weights != config.model.weights:
        changes["model.weights"] = weights
    return config.replace(changes) if changes else config


def _check_baseline(config: TrialConfig) -> None:
    """Refuse a setting that the method would silently ignore."""
    usual, reads = BaselineConfig(), METHODS[config.method].reads
    for name in BaselineConfig.model_fields:
        given = getattr(config.baseline, name)
        if name not in reads and given != getattr(usual, name):
            readers = ", ".join(method for method, entry in METHODS.items() if name in entry.reads)
            raise ConfigError(
                f"baseline.{name} is {given}, which method {config.method!r} does not read ({readers} do): leave it at "
                f"{getattr(usual, name)}"
            )


def _inputs(config: TrialConfig, root: Path | None) -> dict[str, str]:
    """Digests of everything that a trial reads, by role."""
    inputs = {
        role: content_digest(config.data.benchmark, config.value(f"data.{role}"), root) for role in ("source", "target")
    }
    weights = weights_digest(config.model.weights)
    return inputs | ({} if weights is None else {"weights": weights}) | code_digests(config)


def forget_inputs() -> None:
    """Digest data and source again: they may have changed since this process digested them."""
    content_digest.cache_clear()
    forget_code()


@cache
def content_digest(benchmark: str, domain: str, root: Path | None) -> str:
    """`domain_digest`, computed once until `forget_inputs`: a study of many cells has few domains."""
    return domain_digest(benchmark, domain, root=root)


def open_data(config: TrialConfig, targets: Sequence[str], root: Path | None) -> tuple[Domain, Mapping[str, Domain]]:
    """The decoded source, and decoded targets by name. The first call decodes; later ones map the same file.

    Args:
        config: names the benchmark, the source and how images are decoded.
        targets: canonical names.
        root: folder of an image benchmark.

    Raises:
        DataError: folders, classes or images are not as they must be.
    """
    data = config.data
    source, *opened = open_domains(
        data.benchmark, [data.source, *targets], root=root, resize=data.resize, corrupt=data.corrupt
    )
    return source, dict(zip(targets, opened, strict=True))
