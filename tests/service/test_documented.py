"""The examples of docs/service.md and of the page are ones that the service takes."""

import json
import re
import tomllib
from pathlib import Path

import yaml

from scale_ray.service.settings import settings_of
from scale_ray.service.submission import Submission
from scale_ray.service.web import EXAMPLE

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "service.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_studies_are_taken() -> None:
    (documented,) = map(json.loads, blocks("json"))
    assert [len(Submission.parse(each).study.study().cells()) for each in (documented, EXAMPLE)] == [9, 9]


def test_the_settings_are_taken() -> None:
    settings, proxy = map(tomllib.loads, blocks("toml"))
    found = settings_of({**settings, **proxy}, "docs/service.md")
    assert found.quota_of("ann").gpus == 2
    assert found.quota_of("ben").places == 4
    assert found.proxy is not None


def test_the_settings_beside_a_cluster_are_taken() -> None:
    documents = list(yaml.safe_load_all((REPOSITORY / "cluster" / "service.yaml").read_text()))
    (settings,) = [each["data"]["service.toml"] for each in documents if each["kind"] == "ConfigMap"]
    assert settings_of(tomllib.loads(settings), "cluster/service.yaml").tokens
    (deployment,) = [each for each in documents if each["kind"] == "Deployment"]
    assert deployment["spec"]["replicas"] == 1
