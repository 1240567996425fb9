"""`python -m bench` as one runs it."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def test_json_has_the_machine_and_each_case_with_its_reference_and_goal():
    done = bench("codec", "--quick", "--json")

    report = json.loads(done.stdout)
    assert done.returncode == (0 if all(result["met"] for result in report["results"]) else 1)
    assert report["machine"]["cores"] >= 1
    assert {"numpy", "pyzmq", "sqlite"} <= report["machine"]["versions"].keys()
    for result in report["results"]:
        assert (result["bench"], result["error"]) == ("codec", "")
        assert abs(result["ratio"] - result["ours"] / result["reference"]) < 1e-9
        assert result["goal"] == {"direction": "at_most", "value": 1.5}
        assert "codec: " + result["case"] in done.stderr


def test_an_unknown_name_is_wrong_usage_that_names_the_nearest():
    done = bench("codex")

    assert done.returncode == 2
    assert "'codec'" in done.stderr


def test_the_list_says_what_there_is():
    done = bench("--list")

    assert done.returncode == 0
    assert "codec: Encode and decode" in done.stdout
