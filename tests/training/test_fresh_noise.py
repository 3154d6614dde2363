"""What is reported was not chosen on the same noise, and is what anyone measures afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import content_of, tiny_run

from tract_ray.analysis.rows import TrialRow, student_of
from tract_ray.data import load_dataset
from tract_ray.distillation import MethodConfig, MomentMatchingConfig
from tract_ray.evaluation import Evaluator
from tract_ray.evaluation.noise import Noise, fixed_labels, fixed_noise, set_seed
from tract_ray.training import Model, Paths, RunConfig, RunResult, load_model, run_distillation
from tract_ray.training.averages import student_at
from tract_ray.training.record import read_scores

PARTS = replace(tiny_run().replace_method(lr_path=(1e-3,) * 4, mu_s_path=(0.5, 0.9, 0.25, 0.5)), parts=2)


def measured(result: RunResult, paths: Paths, noise: Noise, student: Model | None = None) -> float:
    """The distance of a run's student, or of another one, by an evaluator that knows nothing of the run."""
    evaluator = Evaluator(load_dataset("digits"), "classifier", paths.cache)
    student = student or load_model(result.student)
    samples = result.evaluation["samples"]
    return evaluator.distance_of(evaluator.features(lambda noise, _: student.sample(noise), 0, samples, noise))


def test_a_bank_is_chosen_from_on_one_set_and_reported_on_another(paths: Paths, tmp_path: Path) -> None:
    result = run_distillation(tiny_run(), paths, tmp_path)
    assert len(result.distances) == 2
    assert result.distances[result.mu_i] == min(result.distances.values())
    assert result.distances[result.mu_i] == pytest.approx(measured(result, paths, "select"), rel=1e-5)
    assert result.distance == pytest.approx(measured(result, paths, "report"), rel=1e-5)
    assert abs(result.distance - result.distances[result.mu_i]) > 1e-4 * result.distance
    last = read_scores(tmp_path)[-1][1]
    assert (last.distance, last.distances, last.noise) == (result.distance, result.distances, "report")
    assert {score.noise for _, score in read_scores(tmp_path)[:-1]} == {"select"}


def test_a_run_without_a_bank_can_be_chosen_and_reported_on_different_noise(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run().replace_method(mu_i_bank=())
    seen = []
    features = Evaluator.features

    def counted(self: Evaluator, sampler: object, start: int, count: int, noise: Noise) -> object:
        seen.append((count, noise))
        return features(self, sampler, start, count, noise)  # type: ignore[arg-type]

    monkeypatch.setattr(Evaluator, "features", counted)
    result = run_distillation(run, paths, tmp_path)
    assert seen == [(70, "select")] * 3 + [(80, "select"), (80, "report")]
    assert result.distances == {result.mu_i: result.selection}
    assert abs(result.distance - result.selection) > 1e-4 * result.distance


def test_an_own_mu_i_is_reported_on_fresh_noise(paths: Paths, tmp_path: Path) -> None:
    run = replace(tiny_run(), evaluation=replace(tiny_run().evaluation, select="own"))
    result = run_distillation(run, paths, tmp_path)
    assert result.mu_i == next(iter(result.distances))
    assert result.distance == pytest.approx(measured(result, paths, "report"), rel=1e-5)


BEST = MomentMatchingConfig(samples=8 * 16, batch=16, sampling_steps=2, mu_i_bank=(0.5, 0.9))


@pytest.mark.parametrize("method", [tiny_run().method, BEST], ids=lambda method: method.kind)
def test_all_of_a_bank_is_reported_where_seeds_are_compared(method: MethodConfig, paths: Paths, tmp_path: Path) -> None:
    """Also of a method that keeps its best evaluation: all averages of that one, in the stage and in the run."""
    plain = replace(tiny_run(), method=method)
    one = run_distillation(plain, paths, tmp_path / "chosen")
    run = replace(plain, evaluation=replace(plain.evaluation, report="all"))
    every = run_distillation(run, paths, tmp_path / "all")
    assert (every.distance, every.mu_i, every.distances) == (one.distance, one.mu_i, one.distances)
    assert every.trained == 0
    assert one.reported == {one.mu_i: one.distance}
    assert every.reported.keys() == every.distances.keys()
    assert len(set(every.reported.values()) | set(every.distances.values())) == 2 * len(every.distances)
    for mu, distance in every.reported.items():
        row = TrialRow("all", "finished", {}, {}, 0, mu_i=mu)
        folder = student_of(row, tmp_path)
        student = load_model(folder) if folder else student_at(run, paths, mu, {})
        assert student is not None
        assert distance == pytest.approx(measured(every, paths, "report", student), rel=1e-5)


@pytest.mark.parametrize("run", [tiny_run(), PARTS], ids=["whole", "parts"])
def test_a_kill_before_the_result_changes_nothing(
    run: RunConfig, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after its last checkpoint, and found again in the stages of another: the same score, of all images."""
    whole = run_distillation(run, paths, tmp_path / "whole", reuse=False)
    assert whole.evaluation["samples"] == read_scores(tmp_path / "whole")[-1][1].samples == 80
    assert whole.distance == pytest.approx(measured(whole, paths, "report"), rel=1e-5)
    with monkeypatch.context() as patch:
        patch.setattr(RunResult, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_distillation(run, paths, tmp_path / "killed")
    for folder in ("killed", "found"):
        again = run_distillation(run, paths, tmp_path / folder)
        assert (again.distance, again.mu_i, again.distances) == (whole.distance, whole.mu_i, whole.distances)
        assert content_of(tmp_path / folder)["record"] == content_of(tmp_path / "whole")["record"]


def test_the_next_part_scores_the_first_as_if_it_had_trained_it(paths: Paths, tmp_path: Path) -> None:
    """A part's end is of few images within a longer run, and of all where the run ends."""
    run_distillation(PARTS, paths, tmp_path / "two")
    longer = replace(PARTS, parts=3)
    found = run_distillation(longer, paths, tmp_path / "found")
    assert found.trained == 240
    run_distillation(longer, paths, tmp_path / "alone", reuse=False)
    assert content_of(tmp_path / "found")["record"] == content_of(tmp_path / "alone")["record"]
    assert [score.samples for _, score in read_scores(tmp_path / "two")] == [70, 80]
    assert [score.samples for _, score in read_scores(tmp_path / "found")] == [70, 70, 80]


def test_the_sets_share_no_noise_and_no_labels() -> None:
    report, select = (fixed_noise(set_seed(0, name), 0, 1200, (1, 2, 2)).flatten(1) for name in ("report", "select"))
    assert torch.cdist(report, select, p=float("inf")).min() > 0
    drawn = [fixed_labels(set_seed(0, name), 0, 6000, 10, "random") for name in ("report", "select")]
    assert 0.08 < (drawn[0] == drawn[1]).float().mean() < 0.12  # a tenth, by chance
    counts = torch.bincount(drawn[0], minlength=10).float()
    assert float(((counts - 600) ** 2 / 600).sum()) < 30  # chi-squared of nine degrees: one seed in 2,000 is beyond
    assert torch.equal(fixed_labels(0, 700, 900, 10, "random"), drawn[0][700:1600])
