"""What a run that doesn't evaluate has to load."""

import subprocess
import sys


def test_neither_numpy_nor_scipy_is_needed_without_an_evaluation() -> None:
    """pyarrow imports numpy by itself where it is installed, so both are hidden here."""
    code = (
        "import sys\n"
        "sys.modules['numpy'] = sys.modules['scipy'] = None\n"
        "import batchrun.runs.run, batchrun.cli.run, batchrun.cli.plan, batchrun.cli.status"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_orders_of_asking_and_metrics_do_without_scipy() -> None:
    code = (
        "import sys\n"
        "sys.modules['scipy'] = None\n"
        "import batchrun.evaluation.statistics.sampling_order, batchrun.rows.metrics\n"
        "import batchrun.evaluation.statistics.confidence_sequences"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
