"""Four libraries would report to their makers; what is searched for, and on whose images, stays private."""

import os
import sys
from pathlib import Path
from subprocess import run

ROOT = Path(__file__).parent.parent


def plain_python(home: Path, code: str) -> str:
    """What code prints at a user's, whose environment knows nothing of this process's; some libraries are silent where CI is set."""
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    return run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout


def test_albumentations_is_kept_from_asking_the_network_before_it_is_imported():
    lines = (ROOT / "trainables" / "data" / "changes.py").read_text().splitlines()
    assert lines.index('os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"') < lines.index("import albumentations as A")


def test_onnx_runtime_gives_this_machine_no_number_to_report_under(tmp_path):
    plain_python(tmp_path, "import analysis.export.parity")
    assert list(tmp_path.rglob("deviceid")) == []


def test_onnx_runtime_would_give_it_one_if_it_were_not_switched_off(tmp_path):
    plain_python(tmp_path, "import onnxruntime")
    assert len(list(tmp_path.rglob("deviceid"))) == 1


def test_ray_reports_no_usage_though_it_would_if_it_were_not_switched_off(tmp_path):
    code = "from ray._common.usage.usage_lib import usage_stats_enabled; print(usage_stats_enabled())"
    assert plain_python(tmp_path, f"import tuner; {code}") == "False\n"
    assert plain_python(tmp_path, code) == "True\n"


def test_mlflow_is_kept_from_reporting_its_use_though_it_would(tmp_path):
    asked = "from mlflow.telemetry.utils import is_telemetry_disabled as off; print(off())"
    code = f"import os, analysis.export_mlflow.tracking; {asked}; del os.environ['MLFLOW_DISABLE_TELEMETRY']; print(off())"
    assert plain_python(tmp_path, code) == "True\nFalse\n"
