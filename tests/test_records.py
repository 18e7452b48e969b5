"""Records: readable by people, and by later versions of scale_ray."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from scale_ray import __version__, records
from scale_ray.config import RECIPE_VERSION, ConfigError, TrialConfig
from scale_ray.records import ORACLE, SCHEMA_VERSION, CurvePoint, Failure, Record, Result, now, provenance, score

POINT = CurvePoint(
    step=10,
    target_accuracy=100 / 3,
    teacher_accuracy=None,
    source_val_accuracy=0.1 + 0.2,
    losses={"ce": 1e-17},
    kept_fraction=0.5,
)
RESULT = Result(
    target_accuracy=100 / 3,
    teacher_accuracy=None,
    source_val_accuracy=0.1 + 0.2,
    steps=10,
    curve=[POINT],
    skipped={"Real World": ["Drüben/a b.jpg"]},
)


def record() -> Record:
    return Record(
        id="f" * 64,
        status="done",
        config=TrialConfig(),
        inputs={"source": "a" * 64},
        result=RESULT,
        provenance=provenance(started=now(), wall_seconds=1, device="cpu", threads=1),
    )


def test_json_keeps_every_bit_and_every_letter() -> None:
    written = record()
    back = Record.model_validate_json(written.to_json())
    assert back == written
    assert back.result is not None
    assert back.result.curve[0].losses["ce"] == 1e-17
    assert "Drüben/a b.jpg" in written.to_json()


def test_json_is_in_declared_order_and_ends_in_a_newline() -> None:
    text = record().to_json()
    assert list(json.loads(text)) == list(Record.model_fields)
    assert text.startswith('{\n "schema_version": 1,\n')
    assert text.endswith("}\n")


def test_versions_are_written_by_default() -> None:
    assert (record().schema_version, record().recipe_version) == (SCHEMA_VERSION, RECIPE_VERSION)


def test_a_record_refuses_what_it_does_not_know() -> None:
    values = json.loads(record().to_json())
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Record.model_validate(values | {"accuracy": 1})
    with pytest.raises(ValidationError, match="'done' or 'failed'"):
        Record.model_validate(values | {"status": "maybe"})
    with pytest.raises(ValidationError, match="unknown key 'temprature'"):
        Record.model_validate(values | {"config": {"temprature": 1}})


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        record().status = "failed"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        Failure(kind="E", message="", traceback="").kind = "F"  # type: ignore[misc]


def test_scores_by_name() -> None:
    scored = RESULT.model_copy(update={"validators": {"im": 1.5}})
    assert score(scored, "im") == 1.5
    assert score(scored, ORACLE) == score(POINT, ORACLE) == 100 / 3
    with pytest.raises(ConfigError, match=r"no score 'snd'.*older than this validator"):
        score(scored, "snd")
    with pytest.raises(ConfigError, match="unknown validator 'entrpy': did you mean 'entropy'"):
        score(scored, "entrpy")


def test_a_record_without_scores_is_read() -> None:
    values = json.loads(record().to_json())
    del values["result"]["validators"], values["result"]["curve"][0]["validators"]
    assert Record.model_validate(values) == record()


def test_now_is_utc_to_the_second() -> None:
    moment = datetime.fromisoformat(now())
    assert moment.tzinfo == UTC
    assert moment.microsecond == 0
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 5


def test_provenance_names_this_process() -> None:
    made = provenance(started=now(), wall_seconds=1.23456, device="cpu", threads=2)
    assert (made.wall_seconds, made.device, made.threads) == (1.235, "cpu", 2)
    assert made.host == os.uname().nodename
    assert made.versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert made.versions["scale-ray"] == __version__
    assert all(version != "absent" for version in made.versions.values())


def test_provenance_names_the_commit_and_whether_it_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout of one commit, then with a change."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    source = tmp_path / "scale_ray" / "records.py"
    source.parent.mkdir()
    source.write_text("1")
    monkeypatch.setattr(records, "__file__", str(source))
    state = records._git_state.__wrapped__
    assert state() == (None, None)  # as in an installed wheel
    git("init")
    assert state() == (None, None)  # no commit yet
    git("add", ".")
    git("commit", "--message", "one")
    assert state() == (git("rev-parse", "HEAD"), False)
    (tmp_path / "untracked").write_text("")
    assert state() == (git("rev-parse", "HEAD"), False)
    source.write_text("2")
    assert state() == (git("rev-parse", "HEAD"), True)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert state() == (None, None)  # no git on this machine
