"""The counter-based noise: Philox's published answers, moments, and what it depends on."""

from __future__ import annotations

import pytest
import torch

from tract_ray.diffusion.step_noise import philox, step_noise


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_s_known_answers(counter: str, key: str, words: str) -> None:
    """Those that come with Random123, for Philox4x32-10."""

    def read(text: str) -> list[torch.Tensor]:
        return [torch.tensor(int(word, 16)) for word in text.split()]

    c, k = read(counter), read(key)
    found = philox((c[0], c[1], c[2], c[3]), (k[0], k[1]))
    assert " ".join(f"{word.item():08x}" for word in found) == words


def noise(count: int, *shape: int) -> torch.Tensor:
    return torch.randn((count, *shape), generator=torch.Generator().manual_seed(0))


def test_it_is_standard_normal() -> None:
    """Moments, and no correlation between neighbours, steps, samples or with the sample's own noise."""
    xi = noise(400, 3, 8, 8)
    first, second = step_noise(xi, 1).double(), step_noise(xi, 2).double()
    n = first.numel()
    assert first.shape == xi.shape
    for power, moment in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        assert (first**power).mean().item() == pytest.approx(moment, abs=5 * (15 if power > 2 else 2) / n**0.5)
    flat = first.flatten(1)
    quarter = flat.shape[1] // 4  # the two numbers of one pair lie so far apart
    pairs = ((first, second), (first, xi.double()), (flat[1:], flat[:-1]), (flat[:, 1:], flat[:, :-1]))
    for a, b in (*pairs, (flat[:, quarter:], flat[:, :-quarter])):
        assert abs(float((a * b).mean())) < 5 / n**0.5


def test_it_is_the_sample_s_own() -> None:
    xi = noise(5, 1, 3, 3)  # nine numbers: no multiple of four
    whole = step_noise(xi, 7)
    assert torch.equal(step_noise(xi[2:4], 7), whole[2:4])
    assert torch.equal(step_noise(xi.double(), 7), whole)
    assert whole.dtype == torch.float32
    assert len(set(whole.flatten().tolist())) == whole.numel()
    assert not torch.equal(step_noise(xi + 1e-6, 7), whole)
