"""scale-ray serve, submit and token: what they print and refuse. tests/service has the service itself."""

import json
import sys
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
        (("token", "list", "--settings", "nowhere.toml"), ("nowhere.toml", "docs/service.md")),
    ],
)
def test_what_makes_no_sense_is_one_line(settings: Path, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    own = () if "--settings" in arguments else ("--settings", settings)
    refused(command(*arguments, *own), *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("stores", "under [stores]")),
        ('[stores]\na = "x"\n[limit]\ncells = 1', ("limit", "Extra inputs")),
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
    with served(tmp_path, jobs=SimulatedJobs()) as service:
        (tmp_path / "token").write_text(service.token() + "\n")
        monkeypatch.setenv("SCALE_RAY_TOKEN", f"@{tmp_path}/token")
        planned = command("submit", file, "--server", service.url, "--dry-run").out
        assert planned == "try: 2 cells, 0 done, 2 to do, 20 steps; its time is known once some steps are measured\n"
        submitted = command("submit", file, "--server", service.url).out
        assert submitted == planned + f"submitted: {service.url}/studies/try\n"
        file.write_text(json.dumps({"study": {**study, "steps": 20}}))
        refused(command("submit", file, "--server", service.url), "another one of that name", "or extend it")
        file.write_text(json.dumps({"study": {**study, "name": "other", "axes": {"sed": [0]}}}))
        refused(command("submit", file, "--server", service.url), "did you mean 'seed'")
        file.write_text("{")
        refused(command("submit", file, "--server", service.url), "cannot be read as JSON")


def test_no_service_and_no_token_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCALE_RAY_TOKEN", raising=False)
    file = tmp_path / "study.json"
    file.write_text('{"study": {"name": "try", "axes": {"seed": [0]}}}')
    refused(command("submit", file, "--server", "http://127.0.0.1:9"), "no answer", "check --server")
    with served(tmp_path) as service:
        refused(command("submit", file, "--server", service.url), "needs a token")
    monkeypatch.setenv("SCALE_RAY_TOKEN", "@nowhere")
    refused(command("submit", file), "SCALE_RAY_TOKEN=@nowhere", "cannot be read")
