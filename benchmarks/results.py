"""Results of a benchmark: figures as JSON, and as a Markdown table with machine, versions and date."""

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """The machine and the software versions of a benchmark."""
    model = "unknown"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **_gpu(),
        **{name: _version(name) for name in ("torch", "ray", "optuna")},
    }


def _gpu() -> dict[str, str]:
    """The model of the GPU, if torch sees one."""
    try:
        import torch
    except ImportError:
        return {}
    return {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def leave(name: str, title: str, rows: list[dict[str, Any]], notes: list[str]) -> str:
    """Write results/<name>.json and .md; return the Markdown.

    Args:
        rows: dicts with the same keys, which are the columns.
        notes: sentences below the table.
    """
    return _leave(name, title, {"": rows}, notes, {"rows": rows})


def leave_tables(name: str, title: str, tables: Mapping[str, list[dict[str, Any]]], notes: list[str]) -> str:
    """As `leave`, with several tables: heading -> its rows."""
    return _leave(name, title, tables, notes, {"tables": dict(tables)})


def _leave(
    name: str, title: str, tables: Mapping[str, list[dict[str, Any]]], notes: list[str], figures: dict[str, Any]
) -> str:
    facts = machine()
    RESULTS.mkdir(exist_ok=True)
    document = {"benchmark": name, "machine": facts, **figures, "notes": notes}
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    lines = [f"# {title}", ""]
    for heading, rows in tables.items():
        lines += [f"## {heading}", ""] if heading else []
        header = list(rows[0])
        lines += [
            "| " + " | ".join(header) + " |",
            "|" + "---|" * len(header),
            *("| " + " | ".join(str(row[column]) for column in header) + " |" for row in rows),
            "",
        ]
    lines += [f"- {note}" for note in notes]
    lines.append("- " + ", ".join(f"{key} {value}" for key, value in facts.items()))
    text = "\n".join(lines) + "\n"
    (RESULTS / f"{name}.md").write_text(text)
    return text
