"""Sessions: ``nox`` runs tests, lint, docs and build; ``nox -s e2e`` and ``nox -s bench`` are heavy."""

import shutil
import zipfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"

CONSTRAINTS = ("-c", "constraints.txt")
PYPROJECT = nox.project.load_toml("pyproject.toml")
LIGHT = ("typer", "rich", "pydantic", "pyyaml", "platformdirs", "filelock")
DEFAULT_TESTS = "not slow and not network and not gpu"


def install(session: nox.Session, *groups: str) -> None:
    """Install the package with its extras and some dependency groups, at the tested versions."""
    wanted = nox.project.dependency_groups(PYPROJECT, *groups)
    session.install(*CONSTRAINTS, "-e", ".[parquet]", *wanted)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests that need neither a network nor minutes."""
    install(session, "test")
    session.run("python", "-m", "pytest", "-m", DEFAULT_TESTS, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, types and layers."""
    install(session, "test", "lint")
    session.install(*CONSTRAINTS, "nox")  # mypy reads this file too
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("lint-imports")


@nox.session
def docs(session: nox.Session) -> None:
    """Check that docs/cli.md is what --help says, and that links between pages lead somewhere."""
    install(session)
    session.run("python", "docs/make_cli_reference.py", "--check")
    session.run("python", "docs/check_links.py")


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel and sdist; check that the wheel carries the recipes, and that its light commands run."""
    session.install(*CONSTRAINTS, *nox.project.dependency_groups(PYPROJECT, "build"))
    out = str(Path(session.create_tmp()) / "dist")
    shutil.rmtree(out, ignore_errors=True)  # or an older wheel would be checked
    session.run("python", "-m", "build", "--outdir", out, ".")
    built = sorted(str(path) for path in Path(out).iterdir())
    session.run("twine", "check", "--strict", *built)
    wheel = next(path for path in built if path.endswith(".whl"))
    if "icmlora_cli/recipes/train/default.yaml" not in zipfile.ZipFile(wheel).namelist():
        session.error(f"{wheel} lacks the recipes")
    session.install(*CONSTRAINTS, *LIGHT)
    session.install("--no-deps", wheel)  # torch is not needed for what follows
    session.run("icmlora", "--version")
    session.run("icmlora", "recipe", "validate", "train/default", "--kind", "train")


@nox.session(default=False)
def e2e(session: nox.Session) -> None:
    """Run the slow tests, on SmolLM2-135M."""
    install(session, "test")
    session.run("python", "-m", "pytest", "-m", "slow", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Print the benchmarks' ratios."""
    install(session)
    for script in sorted(Path("benchmarks").glob("*.py")):
        session.run("python", str(script))
