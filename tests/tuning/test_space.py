"""What a search may choose: every text that is no range is refused with its place and a remedy."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from scale_ray.config import ConfigError, TrialConfig
from scale_ray.tuning.space import read_space, rounded, settings, size, warm_ups_meet

BASE = TrialConfig().replace(
    {"data.benchmark": "digits", "data.source": "mnist", "data.target": "mnistm", "model.weights": "none"}
)


def test_every_form_is_read() -> None:
    space = read_space(
        [
            "losses.threshold=float:0.5:0.95:0.05",
            "losses.temperature=float:0.03:1:log",
            "optim.weight_decay=float:0:0.01",
            "optim.batch_size=int:16:64:16",
            "model.hidden_dim=int:8:512:log",
            "views.strong=randaugment|colour_affine",
            "views.flip=true|false",
        ],
        BASE,
    )
    assert space == {
        "losses.threshold": FloatDistribution(0.5, 0.95, step=0.05),
        "losses.temperature": FloatDistribution(0.03, 1, log=True),
        "optim.weight_decay": FloatDistribution(0, 0.01),
        "optim.batch_size": IntDistribution(16, 64, step=16),
        "model.hidden_dim": IntDistribution(8, 512, log=True),
        "views.strong": CategoricalDistribution(["randaugment", "colour_affine"]),
        "views.flip": CategoricalDistribution([True, False]),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("losses.threshold", "write PATH=RANGE"),
        ("losses.treshold=float:0.5:0.9", "did you mean 'losses.threshold'"),
        ("losses.threshold=float:0.5", "not enough values"),
        ("losses.threshold=float:a:b", "could not convert"),
        ("losses.threshold=float:0.9:0.5", "low"),
        ("losses.threshold=float:0.5:0.5", "has one value"),
        ("losses.threshold=float:0.5:0.9:0.1:log", "one thing at most"),
        ("losses.threshold=float:0.5:1.5", "losses.threshold: Input should be less than 1"),
        ("losses.temperature=float:0:1:log", "low"),
        ("losses.threshold=0.8", "for one value use --set"),
        ("losses.threshold=0.8|0.8", "names a value twice"),
        ("views.strong=randaugment|rnadaugment", "did you mean 'randaugment'"),
        ("views.crop_scale=[0.5, 1]|[0.6, 1]", "must be a number, a word"),
        ("seed=int:0:5", "use --seeds"),
        ("data.target=mnistm|fonts", "use --pairs"),
        ("parallel.workers=1|2", "use --workers-per-trial"),
    ],
)
def test_what_is_no_range_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_space([text], BASE)
    assert said in str(refused.value)
    assert "--space" in str(refused.value)


def test_a_field_has_one_range_and_a_search_has_a_field() -> None:
    with pytest.raises(ConfigError, match="given twice"):
        read_space(["losses.threshold=0.7|0.8", "losses.threshold=float:0.5:0.9"], BASE)
    with pytest.raises(ConfigError, match="something to search"):
        read_space([], BASE)


def test_settings_of_a_finite_space() -> None:
    space = read_space(["losses.threshold=float:0.5:0.95:0.05", "optim.batch_size=int:16:64:16"], BASE)
    assert size(space) == 10 * 4
    found = [rounded(values) for values in settings(space)]
    assert len({tuple(values.items()) for values in found}) == 40
    assert [values["losses.threshold"] for values in found[::4]] == [
        0.5,
        0.55,
        0.6,
        0.65,
        0.7,
        0.75,
        0.8,
        0.85,
        0.9,
        0.95,
    ]
    assert size(read_space(["losses.temperature=float:0.03:1:log"], BASE)) is None


@pytest.mark.parametrize(
    ("texts", "meet"),
    [
        (["losses.threshold=float:0.5:0.95:0.05", "losses.temperature=float:0.03:1:log"], True),
        (["losses.temperature=float:0.03:1:log"], True),
        (["losses.contrast=dist|proto", "losses.reg_mean=batch|image"], True),
        (["losses.terms=ce+ssl+dist|ce+ssl+2*dist"], True),  # the weight of a term that waits
        (["losses.threshold=float:0.5:0.95", "losses.temperature=float:0.03:1:log"], False),  # never the same threshold
        (["losses.threshold=0.7|0.8"], False),  # two settings differ in it
        (["losses.terms=ce+dist|ce+ssl+dist"], False),
    ],
)
def test_whether_settings_can_share_a_warm_up(texts: list[str], meet: bool) -> None:
    assert warm_ups_meet(read_space(texts, BASE), BASE) == meet
