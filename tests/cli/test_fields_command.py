"""`scale-ray fields`: every field with its default and meaning."""

from commands import command, refused

from scale_ray.config import field_paths


def rows(*arguments: str) -> dict[str, str]:
    outcome = command("fields", *arguments)
    assert outcome.status == 0, outcome.err
    return {line.split()[0]: line for line in outcome.out.splitlines()[1:]}


def test_every_field_has_a_line() -> None:
    assert list(rows()) == field_paths()


def test_words_choose_and_defaults_are_those_of_the_benchmark() -> None:
    assert list(rows("losses.threshold")) == ["losses.threshold", "losses.thresholding"]
    assert "a pseudo-label counts where confidence > threshold" in rows("losses.threshold")["losses.threshold"]
    assert rows("optim.steps")["optim.steps"].split()[1] == "20000"
    assert rows("optim.steps", "--benchmark", "digits")["optim.steps"].split()[1] == "450"
    assert rows("optim.steps", "--frozen")["optim.steps"].split()[1] == "1000"


def test_what_does_not_exist_is_refused() -> None:
    refused(command("fields", "--benchmark", "digts"), "unknown benchmark 'digts': did you mean 'digits'?")
    refused(command("fields", "momentm"), "no field with 'momentm': scale-ray fields lists all")
