"""What a model card has, and what its lines of Python print."""

import re
import subprocess
import sys
from pathlib import Path

HEADINGS = (
    "## Model details",
    "## Intended use",
    "## Factors",
    "## Metrics",
    "## Training data and evaluation data",
    "## Quantitative analyses",
    "## Known errors",
    "## Ethical considerations",
    "## Caveats and recommendations",
)
OURS = {"search_spaces", "trainables", "tuner", "analysis", "sweepvote", "torch"}


def answered(card: Path, folder: Path) -> str:
    """What the card's six lines print in a folder that has the exported file, in a process that imports nothing of this project."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", card.read_text(), re.MULTILINE | re.DOTALL)
    assert len(code.splitlines()) == 6
    code += f"import sys\nassert not {OURS!r} & {{name.split('.')[0] for name in sys.modules}}\n"
    found = subprocess.run([sys.executable, "-I", "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout
