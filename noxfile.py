"""Sessions: ``nox`` runs tests, lint, docs and build; those of other names run only when they are asked for."""

import shutil
import zipfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = False  # a Python that is not on this machine is skipped, and nox says so

CONSTRAINTS = ("-c", "constraints.txt")
PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = ("3.11", "3.12", "3.13")
LIGHT = ("typer", "rich", "pydantic", "pyyaml", "platformdirs", "filelock")
LM_EVAL_TESTS = (
    "tests/lm/test_perplexity.py",
    "tests/workflows/evaluate/test_lm_eval.py",
    "tests/workflows/evaluate/test_evaluate.py::test_lm_eval_scores_base_generated_and_harvested_and_resumes",
)
DEFAULT_TESTS = " and ".join(f"not {marker}" for marker in "slow network gpu browser ray llamacpp serve vllm".split())
LLAMA_CPP = "-DLLAVA_BUILD=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=OFF"
TAKE_LONG = (
    "ablation.py",
    "busy_cores.py",
    "episodes.py",
    "harvest.py",
    "hostile_readers.py",
    "kept_cores.py",
    "parts.py",
    "rivals.py",
    "standin_base.py",
    "warm_start.py",
)
SHIPPED = (
    "icmlora_cli/recipes/train/default.yaml",
    "icmlora_cli/report/templates/report.html.jinja",
    "icmlora_cli/serving/http/play/page/index.html",
    "icmlora_cli/serving/http/play/page/play.css",
    "icmlora_cli/serving/http/play/page/play.js",
    "icmlora_cli/tasks/unrelated.txt",
    "icmlora_cli/bundled/smollm2-135m/generator.safetensors",
)


def install(session: nox.Session, *groups: str) -> None:
    """Install the package with its extras and some dependency groups, at the tested versions."""
    wanted = nox.project.dependency_groups(PYPROJECT, *groups)
    session.install(*CONSTRAINTS, "-e", ".[parquet]", *wanted)


@nox.session(python=PYTHONS)
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
    """Check that docs/cli.md is what --help says, build the site strictly, and check links outside of it."""
    install(session, "docs")
    session.run("python", "docs/make_cli_reference.py", "--check")
    session.run("python", "docs/pictures/make.py", "--check")
    session.run("mkdocs", "build", "--strict", "--quiet", "--site-dir", str(Path(session.create_tmp()) / "site"))
    session.run("python", "docs/check_links.py")


@nox.session(default=False)
def pictures(session: nox.Session) -> None:
    """Make the pictures of the pages from their data, and those of the playground with SmolLM2 in Chromium."""
    install(session, "pictures", "test", "browser")
    session.run("python", "docs/pictures/make.py")
    session.run("python", "docs/pictures/playground.py")


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel and sdist; check that the wheel carries its data files, and that its light commands run."""
    session.install(*CONSTRAINTS, *nox.project.dependency_groups(PYPROJECT, "build"))
    out = str(Path(session.create_tmp()) / "dist")
    shutil.rmtree(out, ignore_errors=True)  # or an older wheel would be checked
    session.run("python", "-m", "build", "--outdir", out, ".")
    built = sorted(str(path) for path in Path(out).iterdir())
    session.run("twine", "check", "--strict", *built)
    wheel = next(path for path in built if path.endswith(".whl"))
    if lacking := set(SHIPPED) - set(zipfile.ZipFile(wheel).namelist()):
        session.error(f"{wheel} lacks {sorted(lacking)}")
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
def browser(session: nox.Session) -> None:
    """Look at report and playground with Debian's Chromium (apt-get install chromium), or that of ICMLORA_CHROMIUM."""
    install(session, "test", "browser")
    session.run("python", "-m", "pytest", "-m", "browser", *session.posargs)


@nox.session(default=False)
def ray(session: nox.Session) -> None:
    """Harvest on a Ray cluster of two nodes on this machine, one of which dies."""
    install(session, "test")
    session.install(*CONSTRAINTS, "-e", ".[ray]")
    session.run("python", "-m", "pytest", "-m", "ray", *session.posargs)


@nox.session(default=False)
def llamacpp(session: nox.Session) -> None:
    """Compare with llama.cpp, built from source by a C++ compiler; on SmolLM2 too where ICMLORA_TEST_CACHE has it."""
    install(session, "test")
    wanted = nox.project.dependency_groups(PYPROJECT, "llamacpp")
    session.install(*CONSTRAINTS, *wanted, env={"CMAKE_ARGS": LLAMA_CPP})
    session.run("python", "-m", "pytest", "-m", "llamacpp", *session.posargs)


@nox.session(default=False)
def serve(session: nox.Session) -> None:
    """Start icmlora serve, and ask it with the openai client."""
    install(session, "test", "serve")
    session.install(*CONSTRAINTS, "-e", ".[serve]")
    session.run("python", "-m", "pytest", "-m", "serve", *session.posargs)


@nox.session(default=False)
def vllm(session: nox.Session) -> None:
    """Resolve adapters through vLLM's own classes; vLLM brings its versions of torch and transformers."""
    session.install("-e", ".[vllm]", *nox.project.dependency_groups(PYPROJECT, "test"))
    session.run("python", "-m", "pytest", "-m", "vllm", *session.posargs)


@nox.session(default=False)
def lmeval(session: nox.Session) -> None:
    """Compare with lm-evaluation-harness: the same perplexities, and its scores of merged adapters."""
    install(session, "test")
    session.install(*CONSTRAINTS, "-e", ".[lm-eval]")
    session.run("python", "-m", "pytest", "-m", DEFAULT_TESTS, *LM_EVAL_TESTS, *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Print the benchmarks' ratios; those that take long are run by themselves."""
    install(session)
    for script in sorted(Path("benchmarks").glob("*.py")):
        if script.name not in TAKE_LONG:
            session.run("python", str(script))


@nox.session(default=False)
def fuzz(session: nox.Session) -> None:
    """Change inputs of every reader at random, a minute each; of those that are named, else of all."""
    install(session, "test", "serve")
    session.run("python", "-m", "tests.fuzz.mutate", "--seconds", "60", *session.posargs)
