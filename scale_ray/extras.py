"""The optional parts of the package: how to install one."""

import json
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from urllib.parse import urlparse
from urllib.request import url2pathname


def how_to_install(extra: str) -> str:
    """The command that installs an extra, from the checkout, wheel or index that the package itself came from.

    Where that was is in `direct_url.json` (https://packaging.python.org/specifications/direct-url).
    """
    try:
        found = distribution("scale-ray").read_text("direct_url.json")
    except PackageNotFoundError:
        found = None
    origin = json.loads(found) if found else {}
    if not origin:
        what = f"scale-ray[{extra}]"
    elif origin.get("dir_info", {}).get("editable"):
        what = f"{url2pathname(urlparse(origin['url']).path)}[{extra}]"
    else:
        what = f"scale-ray[{extra}] @ {origin['url']}"
    option = "-e " if origin.get("dir_info", {}).get("editable") else ""
    return f"pip install {option}{shlex.quote(what)}"
