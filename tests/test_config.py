"""Configurations: plain data and back, a hash that follows the content, names for MLflow, counts."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest

from tract_ray.config import InputError, choose, config_hash, flatten, from_dict, parse_count, to_dict
from tract_ray.distillation import DenoisingConfig, TractConfig
from tract_ray.training import EvaluationConfig, NetworkConfig, RunConfig, TeacherConfig


def run_config(**method: Any) -> RunConfig:
    return RunConfig(
        teacher=TeacherConfig(
            dataset="digits16",
            network=NetworkConfig(name="unet_16x16", options={"channels": 16, "attention": (4,)}),
            training=DenoisingConfig(samples=64_000, batch=64, lr=1e-3),
        ),
        method=TractConfig(**{"samples": 32_000, "batch": 64, "mu_i_bank": (0.9, 0.99), **method}),
        student=NetworkConfig(name="unet_16x16"),
        evaluation=EvaluationConfig(samples=2000),
        seed=3,
    )


def test_round_trip_through_json() -> None:
    config = run_config(time_schedule=(1024, 32, 1), phase_shares=(1, 2), mu_i=0.999)
    again = from_dict(RunConfig, json.loads(json.dumps(to_dict(config))))
    assert isinstance(again.method, TractConfig)
    assert again.method == config.method
    assert config_hash(again) == config_hash(config)
    assert to_dict(again) == to_dict(config)
    assert again.teacher.training == config.teacher.training
    assert again.evaluation == config.evaluation


def test_defaults_need_not_be_written() -> None:
    config = from_dict(RunConfig, {"teacher": {}, "method": {"kind": "tract", "mu_s": 0}})
    assert config == RunConfig(teacher=TeacherConfig(), method=TractConfig(mu_s=0.0))
    assert isinstance(config.method, TractConfig)
    assert isinstance(config.method.mu_s, float)
    assert config.teacher.network == NetworkConfig(name="mlp_8x8")


CHANGES: list[dict[str, Any]] = [
    {"mu_s": 0.5000001},
    {"mu_i": 0.5},
    {"samples": 32_064},
    {"time_schedule": (1024, 1)},
    {"mu_i_bank": (0.99, 0.9)},
    {"student_init": "continue"},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_the_hash_follows_every_setting(change: dict[str, Any]) -> None:
    assert config_hash(run_config(**change)) != config_hash(run_config())


def test_the_hash_follows_the_nested_settings() -> None:
    config = run_config()
    teacher = dataclasses.replace(config.teacher, training=DenoisingConfig(samples=64_000, batch=64, lr=2e-3))
    changed = [
        dataclasses.replace(config, seed=4),
        dataclasses.replace(config, student=None),
        dataclasses.replace(config, teacher=teacher),
        dataclasses.replace(config, evaluation=EvaluationConfig(samples=2001)),
    ]
    assert len({config_hash(c) for c in [config, *changed]}) == 5


def test_equal_configurations_have_equal_hashes() -> None:
    """However a number was spelt, and whatever the order of a mapping's names."""
    assert run_config(mu_s=0) == run_config(mu_s=0.0)
    assert config_hash(run_config(mu_s=0)) == config_hash(run_config(mu_s=0.0))
    one = NetworkConfig(name="unet_8x8", options={"channels": 8, "blocks": 2})
    other = NetworkConfig(name="unet_8x8", options={"blocks": 2, "channels": 8})
    assert config_hash(one) == config_hash(other)


def test_the_hash_is_the_same_in_another_process() -> None:
    code = (
        "from tract_ray.config import config_hash; from tract_ray.distillation import TractConfig;"
        "print(config_hash(TractConfig(mu_s=0.25)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == config_hash(TractConfig(mu_s=0.25))
    assert len(found.strip()) == 16


def test_flat_names() -> None:
    flat = flatten(run_config(mu_s=0.25))
    expected = {
        "seed": 3,
        "method.kind": "tract",
        "method.mu_s": 0.25,
        "method.mu_i": None,
        "method.time_schedule": "1024,32,1",
        "method.mu_i_bank": "0.9,0.99",
        "teacher.dataset": "digits16",
        "teacher.network.options.attention": "4",
        "teacher.training.kind": "denoising",
        "teacher.training.lr": 1e-3,
        "evaluation.samples": 2000,
        "student.name": "unet_16x16",
    }
    assert {name: flat[name] for name in expected} == expected
    assert not any(isinstance(value, dict | list) for value in flat.values())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"method": {"kind": "trakt"}}, "method.kind: unknown 'trakt'; did you mean 'tract'?"),
        ({"method": {"kind": "tract", "mu": 0.5}}, "method: unknown 'mu'; did you mean 'mu_s'?"),
        ({"method": {"kind": "tract", "mu_s": "high"}}, "method.mu_s: expected a number, got 'high'"),
        ({"method": {"kind": "tract", "batch": 2.5}}, "method.batch: expected a whole number, got 2.5"),
        ({"method": 3}, "method: expected a mapping, got int"),
        ({"metod": {}}, "RunConfig: unknown 'metod'; did you mean 'method'?"),
        ({"teacher": {"network": {"name": "unet_8"}}}, "network: unknown 'unet_8'; did you mean 'unet_8x8'?"),
    ],
)
def test_wrong_data_is_one_line(data: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        from_dict(RunConfig, {"teacher": {}, "method": {"kind": "tract"}, **data})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("38400", 38_400),
        (64, 64),
        ("64k", 64_000),
        ("1.5k", 1500),
        ("96M", 96 * 2**20),
        ("0.5M", 2**19),
        ("1_000", 1000),
        ("1,000", 1000),
        (" 7 ", 7),
    ],
)
def test_counts(text: str | int, count: int) -> None:
    assert parse_count("samples", text) == count


@pytest.mark.parametrize("text", ["", "k", "many", "-5", "0", "1.5", "0.0001k", "inf", "nan", "1e999", "3G"])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(InputError, match=r"^samples: ") as caught:
        parse_count("samples", text)
    assert "\n" not in str(caught.value)


def test_choices() -> None:
    assert choose("network", "b", {"a": 1, "b": 2}) == "b"
    with pytest.raises(InputError, match=r"^network: unknown 'zzz' \(choose from a, b\)$"):
        choose("network", "zzz", {"b": 1, "a": 2})
