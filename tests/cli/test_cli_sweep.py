"""`tract-ray sweep`: our scripts by name, a person's by path, and one function is enough."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import Called, call_script, refusal, run, tract_ray
from services import ROOT

from tract_ray.analysis.rows import TrialRow
from tract_ray.cli.sweep_script import _failures
from tract_ray.search.study import MACHINE

SCRIPTS = sorted((ROOT / "sweeps").glob("*.py"))
OWN = '''"""Which learning rate suits TRACT here?"""


def suggest(trial):
    return {"method.lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True)}
'''


def test_a_list_of_questions() -> None:
    """Without importing what only a sweep needs."""
    listed = run("sweep", "--help")
    for script in SCRIPTS:
        assert re.search(rf"^  {script.stem} +\w+ .*", listed, re.M)
    code = "import sys; from tract_ray.cli.sweeps import app; print({'ray', 'torch', 'optuna'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_name_is_its_script(tmp_path: Path) -> None:
    """With its own defaults."""
    options = ["--dry-run", "--storage", tmp_path, "--name", "dry", "--samples", "64k", "--trials", "7"]
    said, called = run("sweep", "phase_search", *options), call_script(ROOT / "sweeps" / "phase_search.py", *options)
    untimed = [re.sub(r"^about .*$", "", text, flags=re.M) for text in (said, called.out)]
    assert untimed[0] == untimed[1]
    assert "early stopping: none" in said


def test_a_script_of_ones_own_needs_one_function(tmp_path: Path) -> None:
    script = tmp_path / "lr_search.py"
    script.write_text(OWN)
    said = run("sweep", script, "--dry-run", "--storage", tmp_path / "runs", "--trials", "3", "--set", "mu_s=0.9")
    assert said.startswith("lr_search: Which learning rate suits TRACT here?\n")
    assert re.search(r"^  lr +0.0001 to 0.01, logarithmic$", said, re.M)
    assert "(3 trials x 1 seeds" in said
    script.write_text(OWN + 'ANCHORS = ({"lr": 1e-3},)\nDEFAULTS = {"repeats": 2, "pruner": "none"}\n')
    said = run("sweep", script, "--dry-run", "--storage", tmp_path / "runs")
    assert "1 of 12 trials are anchors" in said
    assert "(12 trials x 2 seeds" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "has neither a function suggest(trial) nor a function plan(options)"),
        ("def suggest():\n    return {}\n", "suggest takes one argument, the trial"),
        ("def plan(a, b):\n    return {}\n", "plan takes one argument, the options"),
        ("def suggest(trial)\n", "cannot be read (SyntaxError"),
        ("import nowhere\n", "cannot be read (ModuleNotFoundError: No module named 'nowhere')"),
        (OWN.replace("method.lr", "method.mu_t"), "method: unknown 'mu_t'; did you mean 'mu_s'"),
        (OWN + "DEFAULTS = {'trails': 3}\n", "DEFAULTS: unknown 'trails'; did you mean 'trials'"),
    ],
)
def test_a_script_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    script = tmp_path / "own.py"
    script.write_text(text)
    assert message in refusal("sweep", script, "--dry-run", "--storage", tmp_path / "runs")


def test_names_and_files_that_are_not_there(tmp_path: Path) -> None:
    assert refusal("sweep", "mu_serach").startswith("sweep: unknown 'mu_serach'; did you mean 'mu_search'")
    assert refusal("sweep", tmp_path / "gone.py") == f"sweep: there is no file {tmp_path / 'gone.py'}"


def test_without_the_packages_of_a_cluster() -> None:
    code = (
        "import sys; sys.modules['ray'] = None; sys.argv = ['tract-ray', 'sweep', 'mu_search', '--dry-run']\n"
        "from tract_ray.cli.command import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: sweep: ray is missing; pip install 'tract-ray[cluster]'\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["mu_search", "--set", "mu_s=0.5"], "set: mu_s is what this sweep varies"),
        (["mu_search", "--set", "mu_i_bank=[0.5]"], "set: mu_i_bank is what this sweep itself decides"),
        (["mu_search", "--set", "mu_t=0.5"], "method setting: unknown 'mu_t'; did you mean 'mu_s'"),
        (["mu_search", "--method", "trac"], "method: unknown 'trac'; did you mean 'tract'"),
        (["mu_search", "--method", "denoising"], "method: denoising trains teachers"),
        (["phase_search", "--method", "consistency"], "method: this sweep is about tract and tract_edm, not"),
        (["moment_matching_search", "--method", "tract"], "method: this sweep is about moment_matching and"),
        (["method_comparison", "--method", "regression"], "method: this sweep compares no rows of regression"),
    ],
)
def test_methods_and_settings_that_do_not_suit(tmp_path: Path, options: list[str], message: str) -> None:
    assert refusal("sweep", *options, "--dry-run", "--storage", tmp_path).startswith(message)


def test_resume_takes_the_name() -> None:
    assert refusal("sweep", "mu_search", "--resume", "gone") == refusal(
        "sweep", "mu_search", "--resume", "--name", "gone"
    )


def test_the_old_way_to_call_a_script_is_the_same() -> None:
    called = call_script(ROOT / "sweeps" / "mu_search.py", "--resume", "gone")
    assert called == Called(2, "", tract_ray("sweep", "mu_search", "--resume", "gone").err)


def test_a_further_seed_that_failed_is_named_with_its_own_error(tmp_path: Path) -> None:
    """Its first seed had no trouble, and a trial whose number begins alike is another."""
    sweep = SimpleNamespace(folder=tmp_path)
    row = TrialRow("trial-1000", "failed", {}, {}, 64, reason=MACHINE)
    found = SimpleNamespace(failed=["trial-1000"], rows=[row, row])
    assert _failures(sweep, found) == "1 of 2 trials failed; trial-1000: its worker died; --resume tries it again"  # type: ignore[arg-type]
    for name, error in (("trial-10000", "OSError: another"), ("trial-1000.1", "OSError: No space left on device")):
        (tmp_path / "trials" / name).mkdir(parents=True)
        (tmp_path / "trials" / name / "error.txt").write_text(f"Traceback (most recent call last)\n{error}\n")
    assert _failures(sweep, found) == (  # type: ignore[arg-type]
        "1 of 2 trials failed; trial-1000.1: OSError: No space left on device; --resume tries it again"
    )
