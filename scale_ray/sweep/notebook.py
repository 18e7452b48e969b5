"""What a person sees of a study in a notebook: one output that changes, instead of a line for every event."""

import io
from collections.abc import Callable
from threading import Event, Thread

from rich.console import Console, RenderableType

_SECONDS = 1.0  # between two pictures
_COLUMNS = 110
_FRAME = '<pre style="white-space:pre;overflow-x:auto;line-height:normal;margin:0">{code}</pre>'


class NotebookLive:
    """Shows a picture below the code that runs, and draws it again every second.

    rich's own `Live` needs ipywidgets here, and leaves nothing in the notebook's file. IPython's display handles are in
    every kernel, and the file keeps the last picture.

    Args:
        picture: returns what to show now.
    """

    def __init__(self, picture: Callable[[], RenderableType]):
        self._picture = picture
        self._ended, self._thread = Event(), Thread(target=self._draw_again, daemon=True)

    def start(self) -> None:
        from IPython.display import display

        self._handle = display(self._drawn(), raw=True, display_id=True)
        self._thread.start()

    def stop(self) -> None:
        """Draw the last picture, which stays."""
        self._ended.set()
        self._thread.join()
        self._handle.update(self._drawn(), raw=True)

    def _draw_again(self) -> None:
        while not self._ended.wait(_SECONDS):
            self._handle.update(self._drawn(), raw=True)

    def _drawn(self) -> dict[str, str]:
        """The picture by MIME type."""
        console = Console(
            file=io.StringIO(),
            record=True,
            width=_COLUMNS,
            force_terminal=True,
            force_jupyter=False,
            color_system="truecolor",
            highlight=False,
            markup=False,
            emoji=False,
        )
        console.print(self._picture())
        return {
            "text/plain": console.export_text(clear=False),
            "text/html": console.export_html(inline_styles=True, code_format=_FRAME),
        }
