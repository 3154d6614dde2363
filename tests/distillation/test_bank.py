"""Averages that are kept together against those that are not, and against their definition."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from small_methods import build, small_config
from torch import Tensor, nn

from tract_ray.data import Dataset
from tract_ray.distillation import EMA
from tract_ray.distillation.bank import AverageBank
from tract_ray.training import train
from tract_ray.training.checkpoint_writer import CheckpointWriter

MUS = (0.0, 0.3, 0.9, 0.99, 0.999, 0.99995)


def network(width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 5), nn.Linear(5, 2)).double()


def walk(follower: AverageBank | EMA | Sequence[EMA], steps: int, looks: Sequence[int] = ()) -> list[Tensor]:
    """The weights of a random walk `(steps, P)`, taken in one by one; looked at after each of `looks`."""
    torch.manual_seed(1)
    walker, seen = network(), []
    for step in range(steps):
        with torch.no_grad():
            for p in walker.parameters():
                p.add_(torch.randn_like(p))
        seen.append(flat(walker))
        for one in [follower] if isinstance(follower, AverageBank | EMA) else follower:
            one.update(walker)
        if step in looks and isinstance(follower, AverageBank):
            follower[MUS[0]]
    return seen


def flat(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


@pytest.mark.parametrize("steps", [1, 2, 3, 17, 40])
@pytest.mark.parametrize("looks", [(), (0, 6, 7, 30)])
def test_every_average_is_the_direct_weighted_sum(steps: int, looks: Sequence[int]) -> None:
    bank = AverageBank(network(), MUS)
    weights = torch.stack(walk(bank, steps, looks))
    assert bank.updates == steps
    for mu in MUS:
        profile = torch.tensor([mu ** (steps - 1 - i) for i in range(steps)], dtype=torch.float64)
        expected = (profile[:, None] * weights).sum(0) / profile.sum()
        torch.testing.assert_close(flat(bank[mu].network), expected, rtol=1e-11, atol=1e-12)
        assert bank[mu].updates == steps


def test_a_bank_waits_and_a_few_averages_do_not() -> None:
    bank, few = AverageBank(network(), MUS), AverageBank(network(), MUS[:3])
    walk(bank, 2)
    walk(few, 2)
    assert (bank.settled, few.settled) == (False, True)
    assert (bank.updates, few.updates) == (2, 2)
    bank.settle()
    assert bank.settled


def test_mu_zero_is_the_network_bit_by_bit() -> None:
    bank = AverageBank(network().float(), MUS)
    last = walk(bank, 13)[-1]
    assert torch.equal(flat(bank[0.0].network), last.to(bank[0.0].network[0].weight.dtype))  # type: ignore[index]


def test_averages_that_were_replaced_are_followed() -> None:
    """Moving a network to another device and back gives it other tensors than the bank's."""
    bank, alone = AverageBank(network(), MUS), EMA(network(), 0.9)
    walk(bank, 5)
    for average in bank.values():
        for p in average.network.parameters():
            p.data = p.data.clone()
    walk(alone, 5)
    walk(bank, 7)
    walk(alone, 7)
    torch.testing.assert_close(flat(bank[0.9].network), flat(alone.network), rtol=1e-11, atol=1e-12)


def test_copies_and_loaded_weights_are_their_own() -> None:
    bank = AverageBank(network(), MUS)
    walk(bank, 9)
    other = network()
    before = flat(bank[0.9].network)
    bank[0.3].network.load_state_dict(other.state_dict())
    assert torch.equal(flat(bank[0.3].network), flat(other))
    assert torch.equal(flat(bank[0.9].network), before)


def test_checkpoints_wait_until_the_bank_is_settled(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run continued from a checkpoint between two marks is the undisturbed one, to the last bit."""
    config = small_config("tract", 24, mu_i_bank=MUS, mu_i_bank_phases="all")
    end = config.steps

    def run(folder: str, until: int | None = None) -> dict[str, Tensor]:
        method = build("tract", config)
        marks = [end] if until is None else []
        train(method, digits, seed=1, key="k", folder=tmp_path / folder, marks=marks, until=until)
        return {f"{n}.{k}": v.clone() for n, m in method.modules().items() for k, v in m.state_dict().items()}

    whole = run("whole")
    monkeypatch.setattr(CheckpointWriter, "due", lambda self: True)
    written: list[int] = []
    save = CheckpointWriter.save

    def counted(self: CheckpointWriter, *args: object) -> None:
        written.append(args[2].step)  # type: ignore[attr-defined]
        save(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(CheckpointWriter, "save", counted)
    run("killed", until=end // 2 + 2)
    assert written
    assert len(written) < end // 2  # not after every step, though one was due after each
    resumed = run("killed")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
