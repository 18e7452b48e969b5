"""What head and workers on AWS may do: the policies of cluster/aws with their conditions, which moto does not check."""

import json
import os
import re
import shutil
import subprocess
from urllib.parse import parse_qs, unquote

import boto3
import pytest
import yaml
from roles import ACCOUNT, CLUSTER, HEAD, OF_THE_CLUSTER, POLICIES, ROLES, WORKER, allowed, filled, listed, statements
from s3_server import S3Server

from scale_ray.store import Store


def arn(kind: str) -> str:
    return f"arn:aws:ec2:us-west-2:{ACCOUNT}:{kind}/x"


# The store


def needed(method: str, path: str, query: str) -> list[tuple[str, str, dict[str, str]]]:
    """What S3 asks for a request: action, resource, context."""
    bucket, _, key = unquote(path).lstrip("/").partition("/")
    words = parse_qs(query, keep_blank_values=True)
    of_bucket, of_key = f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/{key}"
    if not key and method == "GET":
        return [("s3:ListBucket", of_bucket, {"s3:prefix": words["prefix"][0]} if "prefix" in words else {})]
    if not key and method == "HEAD":
        return [("s3:ListBucket", of_bucket, {})]
    if not key and method == "POST" and "delete" in words:
        return []  # each of its keys, which are of the body
    # Of a key that is missing, only who may list learns that; and a request for a key has no prefix.
    return {
        "GET": [("s3:GetObject", of_key, {}), ("s3:ListBucket", of_bucket, {})],
        "HEAD": [("s3:GetObject", of_key, {}), ("s3:ListBucket", of_bucket, {})],
        "PUT": [("s3:PutObject", of_key, {})],
        "POST": [("s3:PutObject", of_key, {})],  # an upload in parts
        "DELETE": [("s3:DeleteObject", of_key, {})],
    }[method]


def test_workers_may_do_all_that_a_store_asks_of_s3(s3: S3Server) -> None:
    s3.asked.clear()
    store = Store("s3://bucket/ablation", create=True)
    store.files.write("records/a.json", b"{}")
    store.files.write("checkpoints/deep/a.pt", bytes(6 * 2**20))
    assert store.files.read("records/a.json") == b"{}"
    assert not store.files.exists("records/b.json")
    assert store.files.names("records") == ["a.json"]
    assert store.files.folders("checkpoints") == ["deep"]
    store.files.delete("records/a.json")
    store.files.delete_folder("checkpoints")
    assert not list(Store("s3://bucket/ablation").records())
    assert {method for method, *_ in s3.asked} >= {"GET", "HEAD", "PUT", "DELETE"}
    for request in s3.asked:
        for each in needed(*request):
            assert allowed(WORKER, *each), (request, each)


@pytest.mark.parametrize(
    ("action", "key", "may"),
    [
        ("s3:GetObject", "ablation/records/a.json", True),
        ("s3:DeleteObject", "ablation/records/a.json", True),
        ("s3:GetObject", "photos/a.jpg", True),
        ("s3:PutObject", "photos/a.jpg", False),
        ("s3:GetObject", "environments/x.tar.zst", True),
        ("s3:PutObject", "environments/x.tar.zst", False),  # else a worker could change what others run
        ("s3:DeleteObject", "environments/x.tar.zst", False),
        ("s3:GetObject", "ablation-of-others/a.json", False),
        ("s3:PutObject", "others/a.json", False),
        ("s3:PutBucketPolicy", "ablation/a", False),
    ],
)
def test_workers_reach_the_store_and_read_what_they_start_from(action: str, key: str, may: bool) -> None:
    assert allowed(WORKER, action, f"arn:aws:s3:::bucket/{key}") is may
    assert not allowed(WORKER, action, f"arn:aws:s3:::another/{key}")


@pytest.mark.parametrize("prefix", ["ablation", "ablation/records/", "photos/", "environments/x"])
@pytest.mark.parametrize("role", ROLES)
def test_they_list_what_is_theirs(role: str, prefix: str) -> None:
    assert allowed(POLICIES[role], "s3:ListBucket", "arn:aws:s3:::bucket", {"s3:prefix": prefix})


@pytest.mark.parametrize("prefix", ["", "others/", "ablation-of-others/"])
@pytest.mark.parametrize("role", ROLES)
def test_they_list_nothing_else(role: str, prefix: str) -> None:
    assert not allowed(POLICIES[role], "s3:ListBucket", "arn:aws:s3:::bucket", {"s3:prefix": prefix})


# Machines


def test_workers_have_no_right_to_a_machine_or_a_role() -> None:
    assert {action.partition(":")[0] for each in statements(WORKER) for action in listed(each["Action"])} == {"s3"}


@pytest.mark.parametrize("role", ROLES)
def test_no_action_is_a_pattern_and_no_managed_policy_is_used(role: str) -> None:
    for each in statements(POLICIES[role]):
        assert not any("*" in action for action in listed(each["Action"]))
    assert "policy/" not in "".join(path.read_text() for path in (CLUSTER / "aws").iterdir())
    assert not re.search("FullAccess", "".join(path.read_text() for path in CLUSTER.rglob("*") if path.is_file()))


def test_the_head_starts_and_ends_machines_of_its_cluster_alone() -> None:
    cluster = yaml.safe_load((CLUSTER / "gpu.yaml").read_text())["cluster_name"]
    for name, may in ((cluster, True), ("another", False)):
        assert allowed(HEAD, "ec2:RunInstances", arn("instance"), {"aws:RequestTag/ray-cluster-name": name}) is may
        assert (
            allowed(HEAD, "ec2:TerminateInstances", arn("instance"), {"ec2:ResourceTag/ray-cluster-name": name}) is may
        )
        starting = {"ec2:CreateAction": "RunInstances", "aws:RequestTag/ray-cluster-name": name}
        assert allowed(HEAD, "ec2:CreateTags", arn("instance"), starting) is may
    for action in ("ec2:RunInstances", "ec2:TerminateInstances", "ec2:CreateTags", "ec2:StopInstances"):
        assert not allowed(HEAD, action, arn("instance"))
    assert not allowed(HEAD, "ec2:StopInstances", arn("instance"), OF_THE_CLUSTER)


def test_the_head_may_use_what_a_spot_machine_consists_of() -> None:
    parts = ("image", "key-pair", "network-interface", "security-group", "snapshot", "subnet", "volume")
    for part in (*parts, "spot-instances-request"):
        resource = arn(part) if part not in ("image", "snapshot") else f"arn:aws:ec2:us-west-2::{part}/x"
        assert allowed(HEAD, "ec2:RunInstances", resource)
        assert not allowed(HEAD, "ec2:TerminateInstances", resource)


def test_the_head_finds_the_image_that_the_cluster_file_names() -> None:
    nodes = yaml.safe_load((CLUSTER / "gpu.yaml").read_text())["available_node_types"].values()
    (image,) = {node["node_config"]["ImageId"] for node in nodes}
    parameter = f"arn:aws:ssm:us-west-2::parameter{image.removeprefix('resolve:ssm:')}"
    assert allowed(HEAD, "ssm:GetParameters", parameter)
    assert not allowed(HEAD, "ssm:GetParameters", f"arn:aws:ssm:us-west-2:{ACCOUNT}:parameter/secret")


def test_the_head_gives_machines_the_role_of_workers_alone() -> None:
    to_a_machine = {"iam:PassedToService": "ec2.amazonaws.com"}
    for role, may in (("scale-ray-worker", True), ("scale-ray-head", False), ("admin", False)):
        assert allowed(HEAD, "iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/{role}", to_a_machine) is may
    to_another = {"iam:PassedToService": "lambda.amazonaws.com"}
    assert not allowed(HEAD, "iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/scale-ray-worker", to_another)


# roles.sh


@pytest.mark.skipif(shutil.which("aws") is None, reason="no AWS CLI")
@pytest.mark.slow
def test_the_script_makes_the_roles_and_adds_a_store(s3: S3Server) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | s3.environment()
        return subprocess.run(
            [CLUSTER / "aws" / "roles.sh", *words], capture_output=True, text=True, env=environment, check=False
        )

    refused = run("bucket")
    assert refused.returncode != 0
    assert "name the bucket and the store" in refused.stderr
    iam = boto3.client("iam")
    for store in ("ablation", "night/two"):
        done = run("bucket", store)
        assert done.returncode == 0, done.stderr
        if store == "ablation":  # as an earlier version of the script left it
            iam.put_role_policy(RoleName=ROLES[0], PolicyName="store", PolicyDocument=filled(WORKER[0]))
    for role in ROLES:
        names = iam.list_role_policies(RoleName=role)["PolicyNames"]
        given = {name: iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"] for name in names}
        own = {"workers": HEAD[2]} if role == "scale-ray-head" else {}
        for name, file in {"store-ablation": WORKER[0], "nodes": WORKER[1], **own}.items():
            assert given[name] == json.loads(filled(file))
        assert given.keys() == {"store-ablation", "store-night-two", "nodes", *own}
        assert "arn:aws:s3:::bucket/night/two/*" in str(given["store-night-two"])
        (profile,) = iam.list_instance_profiles_for_role(RoleName=role)["InstanceProfiles"]
        assert profile["InstanceProfileName"] == role
        assert not iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
    (spot,) = iam.list_roles(PathPrefix="/aws-service-role/")["Roles"]
    assert spot["Path"] == "/aws-service-role/spot.amazonaws.com/"
