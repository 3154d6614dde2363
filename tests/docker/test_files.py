"""The Docker files without Docker: they parse, what they name exists, every flag is one that its program has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
INSTRUCTIONS = {"FROM", "ARG", "ENV", "RUN", "WORKDIR", "COPY", "USER", "CMD"}


def dockerfile() -> list[tuple[str, str]]:
    """(instruction, arguments) of every logical line."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "docker" / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


@cache
def help_of(*command: str) -> str:
    """The help of a program of this environment, where options are listed one a line."""
    program = [str(Path(sys.executable).parent / command[0]), *command[1:], "--help"]
    done = subprocess.run(program, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "200"})
    return done.stdout


def test_every_instruction_is_one() -> None:
    instructions = [name for name, _ in dockerfile()]
    assert instructions[0] == "FROM"
    assert set(instructions) <= INSTRUCTIONS


def test_every_copied_file_exists_and_is_in_the_context() -> None:
    ignore = (ROOT / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    sources = [source for name, rest in dockerfile() if name == "COPY" for source in rest.split()[:-1]]
    assert {"tract_ray", "sweeps", "constraints.txt"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignore


def test_the_image_installs_the_tested_versions_of_known_extras() -> None:
    installs = [rest for name, rest in dockerfile() if name == "RUN" and "pip install" in rest]
    assert "--constraint constraints.txt" in installs[0]
    assert "--no-deps" in installs[1]
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (extras,) = re.findall(r"\.\[([\w,]+)\]", installs[0])
    assert set(extras.split(",")) <= set(known)


def test_the_image_s_python_is_one_that_the_package_accepts() -> None:
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    (version,) = re.findall(r"^python:3\.(\d+)-slim$", dockerfile()[0][1])
    assert int(version) >= int(required.removeprefix(">=3."))


def test_nothing_runs_as_root() -> None:
    users = [(k, rest) for k, (name, rest) in enumerate(dockerfile()) if name == "USER"]
    assert users[-1][1] == "tract"
    assert [name for name, _ in dockerfile()[users[-1][0] + 1 :]] == ["CMD"]
    assert not any("user" in service or "privileged" in service for service in SERVICES.values())


@pytest.mark.parametrize("name", SERVICES)
def test_services_are_checked_and_seen_from_this_machine_alone(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", []))
    for other, how in service.get("depends_on", {}).items():
        assert other in SERVICES
        assert how == {"condition": "service_healthy"}
    for volume in service.get("volumes", []):
        assert volume.split(":")[0] in COMPOSE["volumes"]


def test_the_services() -> None:
    assert set(SERVICES) == {"ray-head", "ray-worker", "postgres", "mlflow"}
    assert SERVICES["ray-head"]["ports"] == ["127.0.0.1:8265:8265"]
    assert SERVICES["mlflow"]["ports"] == ["127.0.0.1:5000:5000"]
    build = SERVICES["ray-head"]["build"]
    assert (ROOT / "docker" / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()


def test_no_secret_has_a_default() -> None:
    text = (ROOT / "docker" / "compose.yaml").read_text()
    for name in ("RAY_AUTH_TOKEN", "POSTGRES_PASSWORD"):
        assert f"{name}: ${{{name}:?" in text
    assert "docker/.env" in text
    assert ".env" in (ROOT / "docker" / ".gitignore").read_text().split()


def test_volumes_are_where_the_image_made_folders_for_its_user() -> None:
    made = next(rest for name, rest in dockerfile() if "install --directory" in rest)
    for service in ("ray-head", "ray-worker", "mlflow"):
        for volume in SERVICES[service]["volumes"]:
            assert volume.split(":")[1] in made.split()


COMMANDS = {name: service["command"] for name, service in SERVICES.items() if "command" in service}
COMMANDS["ray-head's health"] = SERVICES["ray-head"]["healthcheck"]["test"][1:]


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_flag_exists(command: list[str]) -> None:
    listed = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", help_of(*command[:2])))
    flags = [word.split("=")[0] for word in command[2:] if word.startswith("--")]
    assert flags
    assert set(flags) <= listed


def test_the_comment_s_commands_have_known_flags() -> None:
    text = (ROOT / "docker" / "compose.yaml").read_text()
    (line,) = re.findall(r"#   (ray job submit .*)", text)
    submit, script = line.split(" -- ")
    assert set(re.findall(r"--[a-z-]+", submit)) <= set(re.findall(r"--[a-z-]+", help_of("ray", "job", "submit")))
    program, file, *_ = script.split()
    assert program == "python"
    assert (ROOT / file).is_file()
    assert set(re.findall(r"--[a-z-]+", script)) <= set(re.findall(r"--[a-z-]+", help_of("python", file)))
