"""The pages of a store's searches, as `scale-ray report` writes them. Needs optuna, and neither torch nor ray."""

from collections.abc import Collection
from pathlib import Path

from scale_ray.cli.console import console
from scale_ray.report.read.errors import ReportError
from scale_ray.store import Store


def search_names(store: Store) -> list[str]:
    """Names of the searches whose journal is in the store; without a search, it takes one listing."""
    if not store.files.folders("tuning"):
        return []
    from scale_ray.tuning.view import stored_searches

    return list(stored_searches(store))


def holds_searches_alone(store: Store, names: Collection[str]) -> bool:
    """Whether these searches planned all that is in the store: there is no other study and no other record."""
    from scale_ray.tuning.view import read_search

    plans = store.plans()
    if not {plan.name for plan in plans} <= set(names):
        return False
    known = {cell.id for plan in plans for cell in plan.cells}
    for view in (read_search(store, name) for name in names):
        known |= set() if view is None else view.cells  # a setting that was ended early is in no plan
    return set(store.record_ids()) <= known


def page_name(search: str) -> str:
    return f"tuning-{search}.html"


def write_search_pages(store: Store, names: list[str], out: Path, *, first: str | None = None) -> list[Path]:
    """Write the page of every search and print what it says first.

    Args:
        store: where the searches are.
        names: of the searches.
        out: folder, which is created if needed.
        first: file name of the first page, where it stands for the whole report.

    Raises:
        StoreError: a journal or a record cannot be read.
        ReportError: `out` cannot be a folder.
    """
    from scale_ray.tuning.decision import decide
    from scale_ray.tuning.page import answer_of_search, write_search_page
    from scale_ray.tuning.view import read_search

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(f"{out}: cannot hold a report ({error.strerror}): choose another folder") from None
    files = {name: page_name(name) for name in names}
    if first is not None:
        files[names[0]] = first
    paths = []
    for name in names:
        view = read_search(store, name)
        if view is None:
            console.print(f"{name}: no setting begun, so it has no page")
            continue
        for sentence in answer_of_search(view, decide(view.settings, view.validator)):
            console.print(f"{name}: {sentence}")
        others = [(other, file) for other, file in files.items() if other != name]
        if first is None:
            others.append(("all studies", "report.html"))
        paths.append(write_search_page(view, store, out / files[name], others))
    return paths
