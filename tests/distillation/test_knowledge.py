"""Knowledge distillation: where a student of another architecture starts from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_methods import WIDTH, small_config, small_network

from tract_ray.config import InputError
from tract_ray.diffusion import CosineVP, Denoiser
from tract_ray.networks import build_network
from tract_ray.training import EvaluationConfig, Model, NetworkConfig, Paths, RunConfig, TeacherConfig, run_distillation
from tract_ray.training.student import initial_student

LARGE, SMALL = ({**WIDTH, "blocks": 3}, {**WIDTH, "width": 16})


def model(options: dict[str, int], seed: int = 0, prediction: str = "v") -> Model:
    denoiser = Denoiser(small_network(0, seed, **options).requires_grad_(False), CosineVP(), prediction)
    return Model(denoiser, NetworkConfig(name="mlp_8x8", options=options), (1, 8, 8), 1024, dataset="digits")


def run(teacher: Path, method: str = "tract", **changes: object) -> RunConfig:
    config = small_config(method, 4, 4)
    evaluation = EvaluationConfig(samples=100, rung_samples=100, per_phase=1)
    return RunConfig(teacher=TeacherConfig(path=str(teacher)), method=config, evaluation=evaluation, **changes)  # type: ignore[arg-type]


def weights(network: torch.nn.Module) -> list[torch.Tensor]:
    return list(network.state_dict().values())


def test_the_teachers_shared_layers_are_the_default() -> None:
    teacher = model(LARGE)
    fewer_blocks = NetworkConfig(name="mlp_8x8", options=WIDTH)
    network, student = initial_student(run(Path("t"), student=fewer_blocks), teacher)
    assert network == fewer_blocks
    theirs = teacher.denoiser.module.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in student.state_dict().items())


def test_random_weights_follow_the_seed() -> None:
    teacher, small = model(LARGE), NetworkConfig(name="mlp_8x8", options=SMALL)
    config = run(Path("t"), student=small, student_from="random", seed=5)
    _, student = initial_student(config, teacher)
    expected = build_network("mlp_8x8", options=SMALL, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(weights(student), weights(expected), strict=True))
    _, same_architecture = initial_student(run(Path("t"), student_from="random"), teacher)
    assert not torch.equal(weights(same_architecture)[0], weights(teacher.denoiser.module)[0])


def test_a_model_folder_brings_its_architecture_and_weights(tmp_path: Path) -> None:
    start = model(SMALL, seed=3)
    start.save(tmp_path / "small")
    config = run(Path("t"), student_from=str(tmp_path / "small"))
    network, student = initial_student(config, model(LARGE))
    assert network == start.network
    assert all(torch.equal(a, b) for a, b in zip(weights(student), weights(start.denoiser.module), strict=True))
    assert all(p.requires_grad for p in student.parameters())


@pytest.mark.parametrize(
    ("student", "prediction", "complaint"),
    [(SMALL, "x0", "prediction is x0, not v"), (LARGE, "v", "its network is")],
)
def test_a_folder_that_does_not_suit_is_refused(
    student: dict[str, int], prediction: str, complaint: str, tmp_path: Path
) -> None:
    model(SMALL, prediction=prediction).save(tmp_path / "small")
    config = run(
        Path("t"), student=NetworkConfig(name="mlp_8x8", options=student), student_from=str(tmp_path / "small")
    )
    with pytest.raises(InputError, match=complaint):
        initial_student(config, model(LARGE))


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(InputError, match=r"student_from: .*nowhere"):
        initial_student(run(Path("t"), student_from="nowhere"), model(LARGE))


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """One cache for the classifier that scores the digits."""
    return Paths.at(tmp_path_factory.mktemp("storage"))


@pytest.mark.parametrize("method", ["tract", "moment_matching"])
def test_a_small_student_of_a_large_teacher_end_to_end(method: str, paths: Paths, tmp_path: Path) -> None:
    model(LARGE).save(tmp_path / "teacher")
    small = NetworkConfig(name="mlp_8x8", options=SMALL)
    result = run_distillation(run(tmp_path / "teacher", method, student=small), paths, tmp_path / "run")
    assert result.parameters == sum(p.numel() for p in build_network("mlp_8x8", options=SMALL).parameters())
