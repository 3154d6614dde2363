"""A password in an address: nowhere in what is stored, printed or raised."""

from __future__ import annotations

from pathlib import Path

import pytest
from records import write_lines

from tract_ray.config import InputError
from tract_ray.files import read_json, write_json
from tract_ray.tracking import MlflowStore, Shipper, redact, ui_command
from tract_ray.tracking.redaction import error_line

PLANTED = "hunter2secret"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (f"http://ann:{PLANTED}@host:5000/a", "http://***@host:5000/a"),
        (f"https://{PLANTED}@host", "https://***@host"),
        (f"postgresql+psycopg2://ann:{PLANTED}@host/runs?sslmode=off", "postgresql+psycopg2://***@host/runs?sslmode=off"),
        (f"mysql://ann:p@/#{PLANTED}@host/runs", "mysql://***@host/runs"),
        (f"postgresql://host/runs?user=ann&password={PLANTED}&sslmode=off", "postgresql://host/runs?user=ann&password=***&sslmode=off"),
        (f"mssql+pyodbc:///?odbc_connect=Driver%3Da%3BPwd%3D{PLANTED}", "mssql+pyodbc:///?odbc_connect=***"),
        ("http://host:5000", "http://host:5000"),
        ("sqlite:////home/ann@home/mlflow.db", "sqlite:////home/ann@home/mlflow.db"),
        (f"cannot reach http://ann:{PLANTED}@host and http://other", "cannot reach http://***@host and http://other"),
    ],
)  # fmt: skip
def test_what_is_shown_of_an_address(uri: str, shown: str) -> None:
    assert redact(uri) == shown
    assert redact(shown) == shown


def test_errors_that_quote_a_part() -> None:
    uri = "http://ann:p%40ss-phrase@host:5000"
    for said in ("login ann with p%40ss-phrase failed", "p@ss-phrase is wrong", f"at {uri}/api"):
        line = error_line(RuntimeError(f"{said}\nand more"), uri)
        assert "ss-phrase" not in line
        assert "***" in line
        assert "\n" not in line
    assert error_line(RuntimeError(), uri) == "RuntimeError"


@pytest.mark.parametrize(
    "uri",
    [
        f"http://ann:{PLANTED}@127.0.0.1:9",
        f"http://ann:{PLANTED}@127.0.0.1:notaport",
        f"http://ann:{PLANTED}/rest@127.0.0.1:9",  # the / ends host and port, so the password stands where a port would
        f"ftp://ann:{PLANTED}@127.0.0.1",
        f"postgresql+psycopg2://ann:{PLANTED}@127.0.0.1:9/runs",
        f"nothing+here://ann:{PLANTED}@127.0.0.1/runs",
    ],
)
def test_no_error_holds_the_password(uri: str) -> None:
    with pytest.raises(InputError, match=r"^mlflow-uri: ") as caught:
        MlflowStore(uri, "mu_search")
    assert PLANTED not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert PLANTED not in ui_command(uri, "7")


@pytest.mark.cluster
def test_a_run_stores_no_password(store: MlflowStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shipped to a store whose address has one, and refused by it; a file of an earlier version is cleaned."""
    uri = f"http://ann:{PLANTED}@127.0.0.1:9"
    monkeypatch.setattr(store, "uri", uri)
    write_lines(tmp_path, 0, 2)
    shipper = Shipper(store, "secret", None)
    shipper.watch("trial-0000", tmp_path, {})
    shipper.end("trial-0000", "FINISHED", {"distance": 1.0}, {})
    assert shipper.close()
    file = tmp_path / "shipped.json"
    shipped = read_json(file, "record")
    assert (shipped["uri"], shipped["sent"]) == ("http://***@127.0.0.1:9", 6)
    assert not _holding(tmp_path)
    write_json(file, {**shipped, "uri": uri})
    assert _holding(tmp_path)
    later = Shipper(store, "secret", None)
    later.watch("trial-0000", tmp_path, {})
    assert read_json(file, "record") == shipped
    monkeypatch.setattr(store.client, "set_terminated", _refuse)
    later.end("trial-0000", "KILLED", {}, {})
    assert not later.close(deadline=0.2)
    assert later.trouble == "no login at http://***@127.0.0.1:9 with ***"
    assert not _holding(tmp_path)


def _refuse(*_: object) -> None:
    raise RuntimeError(f"no login at http://ann:{PLANTED}@127.0.0.1:9 with {PLANTED}")


def _holding(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and PLANTED.encode() in file.read_bytes()]
