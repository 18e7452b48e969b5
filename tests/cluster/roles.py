"""The policies of cluster/aws as AWS evaluates them."""

import json
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

CLUSTER = Path(__file__).parents[2] / "cluster"
POLICIES = {
    "scale-ray-head": ("store_policy.json", "node_policy.json", "head_policy.json"),
    "scale-ray-worker": ("store_policy.json", "node_policy.json"),
}
ROLES = sorted(POLICIES)
WORKER = POLICIES["scale-ray-worker"]
HEAD = POLICIES["scale-ray-head"]
ACCOUNT = "123456789012"
OF_THE_CLUSTER = {"ec2:ResourceTag/ray-cluster-name": "scale-ray"}
CONDITIONS: dict[str, Callable[[str | None, list[str]], bool]] = {
    "StringEquals": lambda value, wanted: value in wanted,
    "StringLike": lambda value, wanted: value is not None and any(fnmatchcase(value, one) for one in wanted),
    "StringLikeIfExists": lambda value, wanted: value is None or any(fnmatchcase(value, one) for one in wanted),
}


def filled(name: str) -> str:
    text = (CLUSTER / "aws" / name).read_text()
    return text.replace("YOUR-ACCOUNT", ACCOUNT).replace("YOUR-BUCKET", "bucket").replace("YOUR-STORE", "ablation")


def statements(names: Iterable[str]) -> list[dict[str, Any]]:
    return [each for name in names for each in json.loads(filled(name))["Statement"]]


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def allowed(names: Iterable[str], action: str, resource: str, context: Mapping[str, str] | None = None) -> bool:
    """Whether a statement allows it: as AWS evaluates policies without Deny."""
    assert all(each["Effect"] == "Allow" for each in statements(names))
    return any(
        any(fnmatchcase(action, one) for one in listed(each["Action"]))
        and any(fnmatchcase(resource, one) for one in listed(each["Resource"]))
        and all(
            CONDITIONS[test]((context or {}).get(key), listed(wanted))
            for test, keys in each.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
        for each in statements(names)
    )
