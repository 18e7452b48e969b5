"""Studies on Ray: this folder and `tuning` alone import it."""

import logging
import warnings

# In a notebook, Ray's import asks for ipywidgets; nothing of Ray's is shown there.
logging.getLogger("ray.widgets.util").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message="IProgress not found", module=r"tqdm\.auto")
