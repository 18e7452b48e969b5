"""What a terminal of 80 columns shows: whole words, whole headings, commands and paths in one piece."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_stores import CREATED, OFFICE_HOME, cell_of, config_of, record_of

from scale_ray.cli.console import _broken
from scale_ray.store import Store, StudyPlan

COLUMNS = 80
DOMAINS = ("Art", "Clipart", "Product", "Real_World")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """12 pairs x 3 combinations, one seed, invented figures."""
    made = Store(tmp_path_factory.mktemp("store"), create=True)
    configs = [
        config_of(*pair, losses, "resnet50", 0, **OFFICE_HOME)
        for pair in permutations(DOMAINS, 2)
        for losses in ("ce", "ce+ssl", "ce+ssl+dist+reg")
    ]
    for index, config in enumerate(configs):
        made.write_record(record_of(config, 50 + index % 7))
    made.write_plan(StudyPlan(name="ablation", created=CREATED, cells=[cell_of(config) for config in configs]))
    return made


def on_terminal(*arguments: str | Path) -> str:
    """What scale-ray writes to a terminal, without colours."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    line = [sys.executable, "-m", "scale_ray.cli", *map(str, arguments)]
    shown = b""
    with subprocess.Popen(line, stdout=its, stderr=its, env=environment | {"TERM": "xterm"}):
        os.close(its)
        while True:
            try:
                shown += os.read(ours, 1 << 16)
            except OSError:  # the program has ended
                break
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode()).replace("\r", "")


def test_a_report_breaks_no_word_and_cuts_no_heading(store: Store, tmp_path: Path) -> None:
    shown = on_terminal("report", store.location, "--out", tmp_path, "--figures", "0")
    lines = shown.splitlines()
    too_wide = [line for line in lines if len(line) > COLUMNS]
    assert [line for line in too_wide if not line.strip().startswith("scale-ray ") and "/" not in line] == []
    assert "…" not in shown
    cells = {cell.strip() for line in lines for cell in re.split("[┃│]", line)}
    assert cells >= {f"{domain}>" for domain in DOMAINS} | set(DOMAINS) | {"average", "ce+ssl+dist+reg", "resnet50"}
    piped = subprocess.run(
        [sys.executable, "-m", "scale_ray.cli", "report", store.location, "--out", tmp_path, "--figures", "0"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "Real_World>Clipart" in piped
    sentences = [line for line in piped.splitlines() if not re.match(r"[┏┃┡│├└]", line)]
    assert any(len(sentence) > COLUMNS for sentence in sentences)
    told = [line for line in lines if not re.match(r"[┏┃┡│├└]", line)]
    assert " ".join(told).split() == " ".join(sentences).split()


def test_an_error_breaks_no_word_and_no_path(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a-folder-with-a-long-name"] * 4)
    shown = on_terminal("status", deep)
    assert str(deep) in shown
    assert shown.startswith("error: ")


@given(st.lists(st.text("ab-/", min_size=1, max_size=30), max_size=12).map(" ".join), st.integers(10, 40))
def test_lines_break_between_words_alone(text: str, width: int) -> None:
    lines = _broken(text, width).split("\n")
    assert " ".join(lines) == text
    assert all(len(line) <= width or " " not in line for line in lines)


def test_the_rest_of_an_indented_line_is_indented() -> None:
    assert _broken("  one two\nthree", 7) == "  one\n  two\nthree"
