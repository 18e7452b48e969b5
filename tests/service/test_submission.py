"""A study as JSON is the study that the command line would make; what names a place of its own is refused."""

import pytest

from scale_ray.config import ConfigError
from scale_ray.data.defaults import base_config, usual_settings
from scale_ray.errors import UserError
from scale_ray.service.submission import Submission, refuse_places
from scale_ray.study import Study, approaches, combinations, pairs


def submission(**study: object) -> Submission:
    return Submission.parse({"study": {"name": "try", "axes": {"seed": [0]}, **study}})


def test_what_it_leaves_out_has_the_benchmarks_defaults() -> None:
    found = submission(steps=60, axes={"seed": [0, 1], "pair": ["mnist:mnistm"], "losses": ["ce", "ce+ssl"]}).study
    base = base_config("digits", {"data.source": "mnist", "data.target": "mnistm"}, steps=60)
    axes = {"seed": [0, 1], "pair": pairs("mnist:mnistm"), "losses": combinations("ce", "ce+ssl")}
    assert found.study().cells() == Study("try", base, axes).cells()


def test_methods_bring_the_settings_of_their_papers_but_for_what_the_base_says() -> None:
    found = submission(base={"optim": {"learning_rate": 0.02}}, axes={"method": ["mcc", "scale:ce+ssl"]}).study.study()
    base = base_config("digits", {"optim.learning_rate": 0.02})
    wanted = Study("try", base, {"method": approaches("mcc", "scale:ce+ssl")}, usual_settings(base))
    assert found.cells() == wanted.cells()
    assert {config.optim.learning_rate for config in found.cells()} == {0.02}


def test_a_base_is_nested_or_by_dotted_path_and_may_be_a_whole_config() -> None:
    whole = base_config("digits", {"losses.threshold": 0.9})
    for base in ({"losses": {"threshold": 0.9}}, {"losses.threshold": 0.9}, whole.model_dump(mode="json")):
        assert submission(base=base).study.study().cells() == [whole]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"study": {"name": "../up", "axes": {"seed": [0]}}}, "study.name"),
        ({"study": {"name": "a" * 101, "axes": {"seed": [0]}}}, "study.name"),
        ({"study": {"name": "a; rm -rf /", "axes": {"seed": [0]}}}, "study.name"),
        ({"study": {"name": "x", "axes": {}}}, "an axis at least"),
        ({"study": {"name": "x", "axes": {"seed": [0]}, "code": "import os"}}, "study.code"),
        ({"study": {"name": "x", "axes": {"seed": [0]}}, "run": {"device": "cuda; ls"}}, "run.device"),
        ({"study": {"name": "x", "axes": {"seed": [0]}}, "priority": 101}, "priority"),
        ([], "valid dictionary"),
    ],
)
def test_each_problem_is_one_line_that_names_the_field(values: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Submission.parse(values)


def test_unknown_fields_and_values_are_named_when_the_study_is_made() -> None:
    with pytest.raises(UserError, match=r"did you mean 'losses\.threshold'"):
        submission(base={"losses.treshold": 1}).study.study()
    with pytest.raises(UserError, match="source:target"):
        submission(axes={"pair": ["mnist"]}).study.study()


def test_weights_are_those_that_the_service_knows() -> None:
    known = {"ours": "/srv/weights/ours.safetensors"}
    by_name = submission(base={"model.weights": "ours"}).study.study(known)
    (config,) = by_name.cells()
    assert config.model.weights == known["ours"]
    refuse_places(config, known)
    on_axis = submission(axes={"model.weights": ["none", "ours"]}).study.study(known)
    assert [config.model.weights for config in on_axis.cells()] == ["none", known["ours"]]


@pytest.mark.parametrize(
    "study",
    [
        {"base": {"model.weights": "/etc/passwd"}},
        {"base": {"model": {"weights": "../secret"}}},
        {"axes": {"model.weights": ["none", "/etc/passwd"]}},
        {"axes": {"method": ["scale@lenet=/etc/passwd"]}},
        {"base": {"data.benchmark": "image_folder", "data.source": "../../etc", "data.target": "b"}},
        {"base": {"data.benchmark": "image_folder", "data.source": "a", "data.target": "/etc"}},
        {"axes": {"pair": ["..:b"]}, "base": {"data.benchmark": "image_folder"}},
    ],
)
def test_no_place_of_a_submitters_choosing_is_opened(study: dict[str, object]) -> None:
    configs = submission(**study).study.study().cells()
    with pytest.raises(UserError, match=r"of a submitter's choosing|a path and no domain's name"):
        refuse_places(configs[-1], {})
