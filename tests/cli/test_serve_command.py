"""scale-ray serve, submit and token: what they print and refuse. tests/service has the service itself."""

import json
import socket
import sys
import time
from pathlib import Path

import pytest
from commands import command, refused

sys.path.append(str(Path(__file__).parents[1] / "service"))  # its server on loopback

from serving import served
from simulated import SimulatedJobs


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    file = tmp_path / "service.toml"
    file.write_text(f'database = "sqlite:///{tmp_path}/service.db"\n[stores]\ndefault = "{tmp_path}/store"\n')
    return file


def test_a_token_is_made_listed_without_itself_and_revoked(settings: Path) -> None:
    made = command("token", "create", "ann", "--note", "laptop", "--settings", settings).out.strip()
    assert made.startswith("sr_")
    listed = command("token", "list", "--settings", settings).out
    assert made not in listed
    digest, owner, scope, *_, note = listed.splitlines()[1].split()
    assert (len(digest), owner, scope, note) == (12, "ann", "submit", "laptop")
    assert command("token", "revoke", digest, "--settings", settings).out == f"revoked: {digest} of ann\n"
    assert command("token", "list", "--settings", settings).out.splitlines()[1:] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("token", "create", "ann", "--scope", "root"), ("scope 'root'", "read, submit, admin")),
        (("token", "create", " "), ("owner", "give a name")),
        (("token", "revoke", "abcd"), ("no tokens start so",)),
        (("token", "list", "--settings", "nowhere.toml"), ("nowhere.toml", "check the path")),
    ],
)
def test_what_makes_no_sense_is_one_line(settings: Path, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    own = () if "--settings" in arguments else ("--settings", settings)
    refused(command(*arguments, *own), *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("stores", "under [stores]")),
        ('[stores]\na = "x"\n[limit]\ncells = 1', ("unknown field 'limit'", "did you mean 'limits'")),
        ('[stores]\na = "x"\n[quotas.ann]\nplace = 1', ("unknown field 'quotas.ann.place'", "did you mean 'places'")),
        ('host = "0.0.0.0"\ntokens = false\n[stores]\na = "x"', ("reached from other machines", "leave out")),
        ('database = "nothing://"\n[stores]\na = "x"', ("database", "sqlite:///FILE")),
        ("not toml", ("cannot be read as TOML",)),
    ],
)
def test_settings_that_cannot_be_used_are_refused_before_anything_starts(
    tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    file = tmp_path / "service.toml"
    file.write_text(text)
    refused(command("serve", file), *words)


def test_a_study_is_planned_and_submitted_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "study.json"
    study = {"name": "try", "steps": 10, "axes": {"seed": [0, 1], "losses": ["ce"]}}
    file.write_text(json.dumps({"study": study}))
    jobs = SimulatedJobs()
    with served(tmp_path, jobs=jobs) as service:
        (tmp_path / "token").write_text(service.token() + "\n")
        monkeypatch.setenv("SCALE_RAY_TOKEN", f"@{tmp_path}/token")
        planned = command("submit", file, "--server", service.url, "--dry-run").out
        assert planned == "try: 2 cells, 0 done, 2 to do, 20 steps; its time is known once some steps are measured\n"
        submitted = command("submit", file, "--server", service.url).out
        assert submitted == planned + f"submitted: {service.url}/studies/try\n"
        page = f"{service.url}/studies/try"
        assert command("submit", file, "--server", service.url).out.splitlines()[1].startswith("there already, ")
        service.client().cancel("try")
        while service.client().study("try")["state"] != "cancelled":
            for job in list(jobs.submitted):
                jobs.end(job)
            time.sleep(0.05)
        assert command("submit", file, "--server", service.url).out.splitlines()[1:] == [
            f"there already, cancelled: {page}",
            "nothing was started: resume it, or try its failed cells again, on its page",
        ]
        file.write_text(json.dumps({"study": {**study, "steps": 20}}))
        refused(command("submit", file, "--server", service.url), "another one of that name", "or extend it")
        file.write_text(json.dumps({"study": {**study, "name": "other", "axes": {"sed": [0]}}}))
        refused(command("submit", file, "--server", service.url), "did you mean 'seed'")
        file.write_text("{")
        refused(command("submit", file, "--server", service.url), "cannot be read as JSON")
        refused(command("submit", tmp_path / "none.json"), "none.json", "No such file", "check the path")


def test_a_second_service_at_a_port_is_refused_before_it_does_anything(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        file = tmp_path / "service.toml"
        file.write_text(f'port = {port}\ndatabase = "sqlite:///{tmp_path}/service.db"\n[stores]\na = "{tmp_path}/a"')
        refused(
            command("serve", file), f"127.0.0.1:{port}", "(Address already in use): is another one running?", "--port"
        )
    assert not (tmp_path / "a").exists()


def test_no_service_and_no_token_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCALE_RAY_TOKEN", raising=False)
    file = tmp_path / "study.json"
    file.write_text('{"study": {"name": "try", "axes": {"seed": [0]}}}')
    refused(
        command("submit", file, "--server", "http://127.0.0.1:9"), "no answer", "is `scale-ray serve` running there?"
    )
    refused(command("submit", file, "--server", "localhost:9"), "write http://localhost:9")
    with served(tmp_path) as service:
        refused(command("submit", file, "--server", service.url), "needs a token")
    monkeypatch.setenv("SCALE_RAY_TOKEN", "@nowhere")
    refused(command("submit", file), "SCALE_RAY_TOKEN=@nowhere", "cannot be read")
