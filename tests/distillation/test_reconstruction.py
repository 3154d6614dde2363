"""Averages made after training, against their definition and against averages that were trained."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from small_methods import build, small_config
from torch import Tensor, nn

from tract_ray.config import InputError
from tract_ray.data import Dataset
from tract_ray.distillation import (
    EMA,
    AverageFolder,
    AverageRecorder,
    Distillation,
    DistillationConfig,
    Snapshot,
    coefficients,
    heuristic_mu,
    methods,
    predicted_error,
    propose,
    reconstruct,
)
from tract_ray.distillation.reconstruction import RESIDUALS, combine, inner_product
from tract_ray.training import train

INSIDE = np.geomspace(*RESIDUALS, 9)


def profile(mu: float, step: int, length: int) -> np.ndarray:
    """The weight of steps 1 … length in the average, from its recursion."""
    weights = np.zeros(length)
    for i in range(1, step + 1):
        w = (1 - mu) / (1 - mu**i)
        weights *= 1 - w
        weights[i - 1] += w
    return weights


def ema_of(walk: Tensor, mu: float, step: int) -> Tensor:
    """`(D,)`: the average of `walk` `(N, D)` at `mu` after `step` updates."""
    return torch.from_numpy(profile(mu, step, len(walk))) @ walk


SOME = [Snapshot(n, mu) for n, mu in product((1, 7, 200), (0.0, 1e-3, 0.5, 0.99, 1 - 1e-6))]


@pytest.mark.parametrize("a", SOME)
def test_inner_products_are_the_sums(a: Snapshot) -> None:
    for b in SOME:
        direct = profile(a.mu, a.step, 200) @ profile(b.mu, b.step, 200)
        assert inner_product(a, b) == pytest.approx(direct, rel=1e-9, abs=1e-300)
        assert inner_product(a, b) == inner_product(b, a)


def test_inner_products_near_one_do_not_cancel() -> None:
    """An average over all steps alike: `1/N`; with a slower one than the numbers can tell from it, the same."""
    for steps in (10, 10**6, 10**9):
        flat = Snapshot(steps, 1 - 2**-53)
        assert inner_product(flat, flat) == pytest.approx(1 / steps, rel=1e-6)
        assert inner_product(flat, Snapshot(steps, 1 - 2**-52)) == pytest.approx(1 / steps, rel=1e-6)
    fast = Snapshot(10**9, 0.5)  # the sum to infinity
    assert inner_product(fast, fast) == pytest.approx(0.25 / 0.75, rel=1e-12)


def test_what_was_stored_comes_back() -> None:
    stored = propose(300, 4)
    for k, snapshot in enumerate(stored):
        if snapshot.step == 300:
            assert np.array_equal(coefficients(stored, snapshot.mu, 300), np.eye(len(stored))[k])
            assert predicted_error(stored, snapshot.mu, 300) == 0


@pytest.mark.parametrize(("steps", "times"), [(60, 1), (300, 2), (300, 4), (1000, 3)])
def test_the_combination_is_the_best_one(steps: int, times: int) -> None:
    """Against least squares on the profiles themselves, the sum of the coefficients eliminated."""
    stored = propose(steps, times)
    profiles = np.stack([profile(s.mu, s.step, steps) for s in stored], 1)
    for residual in INSIDE:
        mu = heuristic_mu(residual, steps)
        wanted = profile(mu, steps, steps)
        rest, *_ = np.linalg.lstsq(profiles[:, :-1] - profiles[:, -1:], wanted - profiles[:, -1], rcond=None)
        direct = np.append(rest, 1 - rest.sum())
        best = np.linalg.norm(profiles @ direct - wanted) / np.linalg.norm(wanted)
        found = coefficients(stored, mu, steps)
        assert found.sum() == pytest.approx(1, abs=1e-10)
        assert np.linalg.norm(profiles @ found - wanted) / np.linalg.norm(wanted) == pytest.approx(best, rel=1e-4)
        assert predicted_error(stored, mu, steps) == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize(
    ("carried", "times", "bound"),
    [
        (3, 1, 0.05),
        (3, 2, 0.015),
        (3, 3, 0.004),
        (3, 4, 0.002),
        (3, 6, 0.001),
        (2, 2, 0.12),
        (2, 4, 0.04),
        (2, 6, 0.02),
    ],
)
def test_the_proposed_snapshots_reach_their_bound(carried: int, times: int, bound: float) -> None:
    for steps in (60, 1000, 400_000):
        stored = propose(steps, times, carried)
        assert len(stored) == carried * times + 1
        assert len({s.mu for s in stored}) == carried + 1
        errors = [predicted_error(stored, heuristic_mu(residual, steps), steps) for residual in INSIDE]
        assert max(errors) < bound
        # Rounding of the stored weights is not blown up either.
        sizes = [np.abs(coefficients(stored, heuristic_mu(residual, steps), steps)).sum() for residual in INSIDE]
        assert max(sizes) < 20


def test_phases_of_a_few_steps() -> None:
    for steps in (1, 2, 5):
        stored = propose(steps, 4)
        assert stored[-1].step == steps
        for mu in (0.0, 0.3, 0.9):
            assert predicted_error(stored, mu, steps) < 1e-6


def averages(walk: Tensor, snapshots: Sequence[Snapshot]) -> list[tuple[Snapshot, dict[str, Tensor]]]:
    return [(s, {"w": ema_of(walk, s.mu, s.step)}) for s in snapshots]


@pytest.mark.parametrize("times", [1, 3])
def test_the_error_of_independent_weights_is_the_predicted_one(times: int) -> None:
    walk = torch.randn(300, 4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    stored = averages(walk, propose(300, times))
    for residual in INSIDE[::2]:
        mu = heuristic_mu(residual, 300)
        direct = ema_of(walk, mu, 300)
        error = (reconstruct(stored, mu, 300)["w"] - direct).norm() / direct.norm()
        assert float(error) == pytest.approx(predicted_error(propose(300, times), mu, 300), rel=0.1)


def test_a_random_walk_far_from_the_origin_is_followed_better() -> None:
    steps = torch.randn(300, 1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    walk = 1e6 + steps.cumsum(0)
    stored = averages(walk, propose(300, 3))
    for residual in INSIDE:
        mu = heuristic_mu(residual, 300)
        direct = ema_of(walk, mu, 300)
        error = (reconstruct(stored, mu, 300)["w"] - direct).norm() / (direct - walk[-1]).norm()
        assert float(error) < predicted_error(propose(300, 3), mu, 300)


def test_an_average_at_an_earlier_step() -> None:
    walk = torch.randn(300, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64).cumsum(0)
    stored = averages(walk, [s for s in propose(300, 6) if s.step <= 200])
    direct = ema_of(walk, 0.98, max(s.step for s, _ in stored))
    made = reconstruct(stored, 0.98, max(s.step for s, _ in stored))["w"]
    torch.testing.assert_close(made, direct, rtol=0.02, atol=0.02)


def test_counters_and_precision_stay() -> None:
    first = {"w": torch.tensor([1.0]), "h": torch.tensor([1.0]).bfloat16(), "n": torch.tensor(3)}
    second = {"w": torch.tensor([1e-8]), "h": torch.tensor([3.0]).bfloat16(), "n": torch.tensor(4)}
    total = combine([1e8, -1e16], [first, second])
    assert {name: t.dtype for name, t in total.items()} == {name: t.dtype for name, t in first.items()}
    assert abs(float(total["w"])) < 1  # 1e-8 is not a float32, nor does one hold the sum's terms
    assert int(total["n"]) == 4


def test_what_is_refused() -> None:
    for mu in (1.0, -0.1, 1.5, float("nan")):
        with pytest.raises(InputError, match="mu: must be in"):
            coefficients(propose(10, 2), mu, 10)
        with pytest.raises(InputError, match="mu: must be in"):
            Snapshot(10, mu)
    with pytest.raises(InputError, match=r"Snapshot\(step=10, mu=0.0\) is later than step 9"):
        coefficients([Snapshot(10, 0.0)], 0.5, 9)
    with pytest.raises(InputError, match="step: must be at least 1"):
        predicted_error(propose(10, 2), 0.5, 0)
    with pytest.raises(InputError, match="snapshots: there is none"):
        coefficients([], 0.5, 9)
    with pytest.raises(InputError, match="mu_i_snapshots"):
        propose(10, 0)


# --- in training ---------------------------------------------------------------------------------------------------


def trained(kind: str, digits: Dataset, folder: Path, steps: int, bank: Sequence[float], times: int) -> Distillation:
    config = small_config(kind, steps, 16, mu_i_bank=tuple(bank), mu_i_snapshots=times)
    method = build(kind, config)
    method.store_averages(folder / "averages")
    train(method, digits, seed=0, key="", folder=folder)
    assert isinstance(method, Distillation)
    return method


def flat(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensors[name].flatten().double() for name in sorted(tensors)])


def test_a_trained_average_is_met(digits: Dataset, tmp_path: Path) -> None:
    """300 steps of distillation: the bank's averages were trained, the same ones are made from the stored."""
    bank = [heuristic_mu(residual, 300) for residual in (1e-6, 1e-4, 1e-2, 0.5)]
    method = trained("regression", digits, tmp_path, 300, [0.0, *bank], 4)
    folder, last = AverageFolder(tmp_path / "averages"), flat(method.student.module.state_dict())
    noise = torch.randn((64, 1, 8, 8), generator=torch.Generator().manual_seed(1))
    for mu in bank:
        direct = method.inference[mu].network
        moved = (flat(direct.state_dict()) - last).norm()
        weights, predicted = folder.reconstruct(mu)
        assert (flat(weights) - flat(direct.state_dict())).norm() / moved < max(predicted, 1e-4)
        wanted = method.sample(direct, noise, 1)
        direct.load_state_dict(weights)
        assert (method.sample(direct, noise, 1) - wanted).square().mean().sqrt() < 1e-4
    weights, predicted = folder.reconstruct(0.0)
    assert predicted == 0
    assert torch.equal(flat(weights), last)


def test_every_method_stores_what_it_plans(kind: str, digits: Dataset, tmp_path: Path) -> None:
    """Also those that update the student in every other step; only the last phase stores."""
    if not issubclass(methods[kind].config_type, DistillationConfig):
        pytest.skip("learns from no teacher")
    method = trained(kind, digits, tmp_path, 12, [0.0, 0.7], 2)
    folder = AverageFolder(tmp_path / "averages")
    phase = method.phases[-1]
    updates = sum(method.active(step) == "student" for step in range(phase.steps))
    assert folder.snapshots() == list(propose(updates, 2))
    for mu in (0.0, 0.7):
        weights, _ = folder.reconstruct(mu)
        direct, last = flat(method.inference[mu].network.state_dict()), flat(method.student.module.state_dict())
        assert (flat(weights) - direct).norm() <= 0.01 * (direct - last).norm()


def test_an_interrupted_run_stores_the_same(digits: Dataset, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def run(name: str, killed_at: int | None = None) -> dict[str, bytes]:
        method = build("tract", small_config("tract", 20, mu_i_snapshots=3), dropout=0.1)
        method.store_averages(tmp_path / name / "averages")

        def on_mark(step: int, record: object) -> None:
            if step == killed_at:
                raise Killed

        train(method, digits, seed=1, key="k", folder=tmp_path / name, marks=range(1, 21, 2), on_mark=on_mark)
        return {file.name: file.read_bytes() for file in (tmp_path / name / "averages").iterdir()}

    whole = run("whole")
    for at in (5, 15, 19):
        with pytest.raises(Killed):
            run("killed", at)
    with pytest.raises(InputError, match=r"averages: .* holds none"):
        AverageFolder(tmp_path / "killed" / "averages").snapshots()
    assert run("killed") == whole
    assert len(whole) == 3 * 3 + 2


def test_nothing_is_carried_unless_asked(digits: Dataset, tmp_path: Path) -> None:
    method = trained("tract", digits, tmp_path, 6, [], 0)
    assert method.recorder is None
    assert not (tmp_path / "averages").exists()
    with pytest.raises(InputError, match="mu_i_snapshots"):
        small_config("tract", mu_i_snapshots=-1)


def test_the_recorder_stores_weights_of_their_step(tmp_path: Path) -> None:
    network = nn.Linear(1, 1, bias=False)
    recorder, folder = AverageRecorder(network, propose(40, 3)), AverageFolder(tmp_path)
    direct = EMA(network, 0.9)
    for step in range(1, 41):
        with torch.no_grad():
            network.weight.fill_(step**0.5)
        for average in (*recorder.members.values(), direct):
            average.update(network)
        recorder.store(network, folder)
    weights, error = folder.reconstruct(0.9)
    assert weights["weight"].item() == pytest.approx(direct.network.weight.item(), rel=error)  # type: ignore[union-attr,operator]


def test_damaged_and_missing_averages(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"averages: .* holds none; train with mu_i_snapshots=4"):
        AverageFolder(tmp_path).reconstruct(0.5)
    (tmp_path / "index.json").write_text('{"snapshots": [{"mu": 0.5}]}')
    with pytest.raises(InputError, match="is damaged"):
        AverageFolder(tmp_path).reconstruct(0.5)
    (tmp_path / "index.json").write_text('{"snapshots": [{"mu": 0.5, "step": 3}]}')
    with pytest.raises(InputError, match=r"step-000000003-mu-0.5000000000.safetensors does not exist"):
        AverageFolder(tmp_path).reconstruct(0.5)
