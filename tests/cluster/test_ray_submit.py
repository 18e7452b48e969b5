"""`ray up`, `ray submit`, `ray job submit` and `ray down` for real: cluster/onprem.yaml on machines of namespaces."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from machines import REPOSITORY, Laptop, machines, skip_without

from scale_ray.records import Record
from scale_ray.store import Store

pytestmark = pytest.mark.slow


class Checkout(Laptop):
    """A laptop with a checkout, a cluster file, and a head node and a worker that SSH reaches."""

    def __init__(self, folder: Path, process: int):
        super().__init__(folder, process, {"RAY_AUTH_MODE": "token"})
        self.cluster = folder / "cluster.yaml"
        self.store = folder / "nfs" / "ablation"

    def rays_on(self, address: str) -> set[str]:
        """Which of Ray's servers run on a machine."""
        login = ["ssh", "-i", str(self.folder / "key"), "-o", "StrictHostKeyChecking=no", address]
        return {"raylet", "gcs_server"}.intersection(self.run(*login, "ps", "-eo", "comm=").split())


def cluster_file(folder: Path) -> str:
    """cluster/onprem.yaml with the addresses, login and setup of the machines here, and nothing else changed."""
    config = yaml.safe_load((REPOSITORY / "cluster" / "onprem.yaml").read_text())
    config["provider"] |= {"head_ip": "10.77.0.1", "worker_ips": ["10.77.0.2"]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(folder / "key")}
    environment = {
        "PATH": f"{Path(sys.prefix) / 'bin'}:$PATH",
        "PYTHONPATH": "$HOME/scale_ray",  # the package as the file mounts brought it
        "SCALE_RAY_CACHE": os.environ["SCALE_RAY_CACHE"],
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "token",
    }
    config["setup_commands"] = [f"echo 'export {name}=\"{value}\"' >> ~/.bashrc" for name, value in environment.items()]
    return yaml.safe_dump(config)


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """The machines, after `ray up`: a head, and a worker that joins some seconds later."""
    skip_without("ssh", "ssh-keygen", "sshd", "rsync", debian="openssh-client, openssh-server, rsync")
    folder = tmp_path_factory.mktemp("machines")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True)
    with machines(folder, "ssh", 22) as process:
        made = Checkout(folder, process)
        made.cluster.write_text(cluster_file(folder))
        made.run("ray", "get-auth-token", "--generate")
        made.run("ray", "up", "--yes", str(made.cluster))
        yield made


@pytest.fixture(scope="module")
def submitted(laptop: Checkout) -> Record:
    """The record of one cell, done by `ray submit`."""
    cells = ["--benchmark=digits", "--steps=20", "--limit=1", f"--store={laptop.store}"]
    laptop.run("ray", "submit", str(laptop.cluster), "experiments/ablation.py", "--", *cells)
    (record,) = done_records(laptop.store)
    return record


def test_ray_submit_copies_one_file_and_trains_on_the_worker(laptop: Checkout, submitted: Record) -> None:
    assert (laptop.folder / "head" / "ablation.py").is_file()
    assert not (laptop.folder / "head" / "experiments").exists()
    assert submitted.provenance.host == "worker"
    assert (laptop.store / "report" / "report.html").is_file()


def test_a_submitted_script_says_what_it_takes_and_what_is_wrong(laptop: Checkout) -> None:
    submit = ["ray", "submit", str(laptop.cluster), "experiments/ablation.py", "--"]
    assert "--dry-run" in laptop.run(*submit, "--help")
    with laptop.start(*submit, "--losses=ce+sll", f"--store={laptop.store}") as process:
        output, _ = process.communicate()
    assert process.returncode == 1  # of the script it was 2: `ray submit` knows only success and failure
    assert "did you mean 'ssl'" in output


def test_ray_job_submit_does_what_ray_submit_left(laptop: Checkout, submitted: Record) -> None:
    script = ["python", "experiments/ablation.py", "--benchmark=digits", "--steps=20", "--limit=2"]
    with laptop.start("ray", "dashboard", str(laptop.cluster)) as tunnel:
        try:
            laptop.run("bash", "-c", "until (: < /dev/tcp/127.0.0.1/8265); do sleep 0.2; done")
            submit = ["ray", "job", "submit", "--address=http://127.0.0.1:8265", "--working-dir=."]
            output = laptop.run(*submit, "--", *script, f"--store={laptop.store}")
        finally:
            tunnel.terminate()
    assert "1 done, 1 to do" in output
    records = done_records(laptop.store)
    assert len(records) == 2
    assert submitted in records
    assert {record.provenance.host for record in records} == {"worker"}


def test_who_has_no_token_is_refused(laptop: Checkout) -> None:
    status = ["ray", "status", "--address=10.77.0.1:6379"]
    assert "CPU" in laptop.run(*status)
    with laptop.start("env", "RAY_AUTH_MODE=disabled", *status) as process:
        output, _ = process.communicate()
    assert process.returncode != 0
    assert "token" in output


def test_ray_down_ends_the_head_and_the_worker_follows(laptop: Checkout, submitted: Record) -> None:
    assert laptop.rays_on("10.77.0.1") == {"gcs_server", "raylet"}
    assert laptop.rays_on("10.77.0.2") == {"raylet"}
    laptop.run("ray", "down", "--yes", str(laptop.cluster))
    assert laptop.rays_on("10.77.0.1") == set()
    while laptop.rays_on("10.77.0.2"):  # it gives up on its head after a minute; the test's timeout bounds this
        time.sleep(1)


def done_records(store: Path) -> list[Record]:
    records = list(Store(store).records())
    assert {record.status for record in records} == {"done"}
    return records
