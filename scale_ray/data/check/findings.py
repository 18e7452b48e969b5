"""What `scale-ray data check` finds: one finding is one line, however many images it concerns."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from scale_ray.data.domain_files import image_path
from scale_ray.data.unused import is_named_as_image
from scale_ray.errors import shown

# Kinds, in the order in which they are listed -> what they are about.
STOPPING = {
    "missing": "a folder that is not there",
    "classes": "classes on which no accuracy could be measured",
    "names": "names that no record can hold",
    "empty": "a class or domain without images",
    "unreadable": "a file that is no whole image",
}
PROBLEMS = {
    "leak": "an image that is in two domains",
    "labels": "an image that is in two classes",
    "copies": "an image that is twice in a class",
    "tiny": "an image of next to no pixels",
    "dark": "an image that is nearly black once it is read",
    "count": "another number of images than published",
    "ignored": "a file or folder that is not used",
}
NOTES = {
    "alike": "images of a domain that look the same",
    "small": "a class that cannot be split",
    "balance": "classes or domains of very different sizes",
    "read": "what is done with an image that is odd",
}
_ORDER = [*STOPPING, *PROBLEMS, *NOTES]

EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """One line of a check.

    Attributes:
        kind: a key of STOPPING, PROBLEMS or NOTES.
        text: the line; where there are names, what is the matter with each.
        folder: the folder or URL that the names are in; empty where they are whole paths.
        names: the files that it is about, by their paths in `folder`.
    """

    kind: str
    text: str
    folder: str = ""
    names: tuple[str, ...] = ()

    @property
    def stops_training(self) -> bool:
        return self.kind in STOPPING

    @property
    def is_note(self) -> bool:
        """Whether it is good to know and nothing that must be mended."""
        return self.kind in NOTES

    @property
    def message(self) -> str:
        """One line. Of several files it says how many they are and names some."""
        if len(self.names) < 2:
            return self.lines[0]
        examples = ", ".join(map(shown, self.names[:EXAMPLES]))
        what = "images" if all(map(is_named_as_image, self.names)) else "files"
        where = f"{shown(self.folder)}: " if self.folder else ""
        return f"{where}{len(self.names):,} {what} (such as {examples}): {self.text}"

    @property
    def lines(self) -> list[str]:
        """One line for every file."""
        if not self.names:
            return [self.text]
        return [f"{shown(image_path(self.folder, name))}: {self.text}" for name in self.names]


def by_reason(kind: str, folder: str, reasons: Iterable[tuple[str, str]]) -> list[Finding]:
    """One finding for each reason, of all files of a folder that have it.

    Args:
        kind: of the findings.
        folder: the folder or URL of a domain.
        reasons: name of a file in the folder, and what is the matter with it; sorted by name.
    """
    groups = defaultdict(list)
    for name, reason in reasons:
        groups[reason].append(name)
    return [Finding(kind, reason, folder, tuple(names)) for reason, names in groups.items()]


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Findings by kind: first what stops a training, then what leaks, last what is only good to know."""
    return sorted(findings, key=lambda finding: _ORDER.index(finding.kind))
