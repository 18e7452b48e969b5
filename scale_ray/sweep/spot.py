"""Tells Ray when the cloud announces that this spot machine will be taken away. It runs beside Ray on every worker.

    python -m scale_ray.sweep.spot aws

Ray then starts nothing new on the machine, and trainings there save their state (`scale_ray.sweep.notice`). Ray itself
asks no cloud.
"""

import argparse
import http.client
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

_POLL_SECONDS = 5.0  # what AWS recommends
_TIMEOUT = 5.0
_SECONDS_ON_GCP = 30
_TRIES = 5

# The service may be out of reach for a moment, or say what it does not document.
_NO_ANSWER = (OSError, ValueError, KeyError, http.client.HTTPException)


def seconds_left_on_aws() -> int | None:
    """Seconds until AWS takes the machine away; None where it has not said so.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
    """
    base = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254").rstrip("/")
    token = _ask(f"{base}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, method="PUT")
    notice = _ask(f"{base}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token or ""})
    if notice is None:
        return None
    moment = datetime.fromisoformat(json.loads(notice)["time"])
    return max(0, int((moment - datetime.now(UTC)).total_seconds()))


def seconds_left_on_gcp() -> int | None:
    """Seconds until Google Cloud takes the machine away; None where it has not said so.

    https://cloud.google.com/compute/docs/instances/create-use-spot#detect-preemption
    """
    host = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
    said = _ask(f"http://{host}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    return _SECONDS_ON_GCP if said == "TRUE" else None


CLOUDS: dict[str, Callable[[], int | None]] = {"aws": seconds_left_on_aws, "gcp": seconds_left_on_gcp}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cloud", choices=CLOUDS)
    parser.add_argument("--address", help="of the Ray cluster; default: that of this machine")
    parser.add_argument("--node-id", help="of this machine's Ray node; default: found by Ray")
    asked = parser.parse_args()
    while (seconds := _seconds_left(CLOUDS[asked.cloud])) is None:
        time.sleep(_POLL_SECONDS)
    print(f"this machine will be taken away in {seconds} s", flush=True)
    drain = [
        *(str(Path(sys.executable).parent / "ray"), "drain-node"),
        *(("--address", asked.address) if asked.address else ()),
        *(("--node-id", asked.node_id) if asked.node_id else ()),
        *("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "the spot machine will be taken away"),
        *("--deadline-remaining-seconds", str(seconds)),
    ]
    for _ in range(_TRIES):
        if subprocess.run(drain, check=False).returncode == 0:
            return
    raise SystemExit("Ray does not take the notice")


def _seconds_left(ask: Callable[[], int | None]) -> int | None:
    try:
        return ask()
    except _NO_ANSWER as error:
        print(f"the cloud's metadata cannot be read: {error}", file=sys.stderr, flush=True)
        return None


def _ask(url: str, headers: dict[str, str], method: str = "GET") -> str | None:
    """The answer of the machine's metadata service; None for 404."""
    request = urllib.request.Request(url, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


if __name__ == "__main__":
    main()
