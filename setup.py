"""All but one thing is said in pyproject.toml: a wheel takes the sweeps along, as `tract_ray/sweeps`."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithSweeps(build_py):
    """An installed package finds the scripts of `sweeps/` in itself; an editable one, as a checkout, beside itself."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "tract_ray" / "sweeps"
        self.mkpath(str(target))
        for script in sorted(Path("sweeps").glob("*.py")):
            self.copy_file(str(script), str(target / script.name))


setup(cmdclass={"build_py": BuildWithSweeps})
