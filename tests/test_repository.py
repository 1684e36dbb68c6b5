"""Rules that every file of the repository keeps: what may be imported, caught, named and shipped."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE_FOLDERS = ("src", "mcp_servers", "environments", "adapters")
FRAMEWORKS = {"torch", "transformers", "trl", "ray", "mcp", "fastapi"}
EXTRAS_ONLY = FRAMEWORKS | {
    "accelerate", "datasets", "math_verify", "matplotlib", "opentelemetry", "prometheus_client", "unsloth", "uvicorn",
    "vllm",
}  # fmt: skip
BROAD_EXCEPTIONS = {"Exception", "BaseException"}
MAX_PYTHON_LINES = 500

REGISTRY_HOST = re.compile(
    r"\b(?:pypi\.org|pythonhosted\.org|download\.pytorch\.org|npmjs\.(?:org|com)|yarnpkg\.com|anaconda\.(?:org|com)"
    r"|proxy\.golang\.org|crates\.io|rubygems\.org)\b"
)
MACHINE_PATH = re.compile(r"(?<![\w.~$}>/-])/(?:(?:work|root)\b(?!-)|(?:home|Users)/\w)")


def test_no_file_names_a_package_registry() -> None:
    assert _lines_that_match(REGISTRY_HOST) == []


def test_no_file_names_an_absolute_path_of_a_machine() -> None:
    assert _lines_that_match(MACHINE_PATH) == []


def test_the_core_imports_no_training_framework_at_module_level() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in _python_files("src")
        # Loaded by who serves alone, as the next test sees.
        if not path.is_relative_to(ROOT / "src/gymrail/serving")
        for name, line in _imports_at_module_level(ast.parse(path.read_text(encoding="utf-8")))
        if name.partition(".")[0] in FRAMEWORKS
    ]
    assert found == []


def test_importing_the_core_and_its_command_line_loads_no_package_of_an_extra() -> None:
    code = "import sys, gymrail, gymrail.cli; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert set(loaded.stdout.split()) & EXTRAS_ONLY == set()


def test_only_the_errors_module_catches_every_exception() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for folder in CODE_FOLDERS
        for path in _python_files(folder)
        if path != ROOT / "src/gymrail/errors.py"
        for line in _broad_handlers(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


def test_a_broad_handler_is_found_in_every_form_it_can_be_written_in() -> None:
    bodies = ["except:", "except Exception:", "except (ValueError, BaseException) as e:", "except builtins.Exception:"]
    sources = [f"try:\n    f()\n{body}\n    pass" for body in bodies]
    sources.append("with contextlib.suppress(OSError, Exception):\n    f()")
    assert [len(_broad_handlers(ast.parse(source))) for source in sources] == [1] * 5
    assert _broad_handlers(ast.parse("try:\n    f()\nexcept (ValueError, OSError):\n    pass")) == []


def test_no_python_file_is_longer_than_the_cap() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_bytes().splitlines()) for path in _python_files(".")}
    assert lengths
    assert {name: length for name, length in lengths.items() if length > MAX_PYTHON_LINES} == {}


def test_every_extra_that_the_readme_or_an_error_message_names_exists() -> None:
    known = set(_project()["project"]["optional-dependencies"])
    named = {
        (str(path.relative_to(ROOT)), extra)
        for path, text in _texts()
        for names in re.findall(r"(?:\bgymrail|['\"]\.)\[([a-z_]+(?:, ?[a-z_]+)*)\]", text)
        for extra in re.split(r", ?", names)
    }
    assert "README.md" in {name for name, _ in named}
    assert {(name, extra) for name, extra in named if extra not in known} == set()


def test_every_package_folder_is_in_the_wheel_and_on_the_path_of_an_editable_install() -> None:
    build = _project()["tool"]["hatch"]["build"]
    packages = {
        path.relative_to(ROOT).parent
        for folder in CODE_FOLDERS
        for path in _python_files(folder)
        if path.name == "__init__.py" and not (path.parents[1] / "__init__.py").exists()
    }
    listed = {Path(name) for name in build["targets"]["wheel"]["packages"]}
    assert packages == listed
    assert {package.parent for package in packages} == {Path(name) for name in build["dev-mode-dirs"]}


def test_the_wheel_holds_every_file_of_every_package_and_the_entry_points(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=300, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    packages = [ROOT / name for name in _project()["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]
    wanted = {
        path.relative_to(package.parent).as_posix()
        for package in packages
        for path in _repository_files()
        if path.is_relative_to(package)
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        entry_points = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        text = archive.read(entry_points).decode()
    assert held == wanted
    assert "gymrail = gymrail.cli:main" in text
    assert "trl = gymrail_trl.train:train" in text


def test_the_constraints_are_exact_sorted_and_free_of_addresses_and_build_suffixes() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin)] == []
    names = [pin.partition("==")[0].upper() for pin in pins]
    assert names == sorted(set(names))


def _repository_files() -> list[Path]:
    """Every file that git tracks or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True).stdout
    return [path for name in sorted(set(listed.split("\0"))) if name and (path := ROOT / name).is_file()]


def _python_files(folder: str) -> list[Path]:
    return [path for path in _repository_files() if path.suffix == ".py" and path.is_relative_to(ROOT / folder)]


def _texts() -> Iterator[tuple[Path, str]]:
    for path in _repository_files():
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a picture or an archive
            continue


def _lines_that_match(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path, text in _texts()
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]


def _imports_at_module_level(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Imports that run when the module is imported, so none in a function or under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.level == 0:
            yield child.module or "", child.lineno
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for statement in child.orelse:
                yield from _imports_at_module_level(ast.Module([statement], []))
        elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _imports_at_module_level(child)


def _broad_handlers(tree: ast.Module) -> list[int]:
    """Lines of handlers and of `contextlib.suppress` calls that catch every exception."""
    lines: list[int] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "suppress":
            caught = node.args
        else:
            continue
        names = {ast.unparse(item).rpartition(".")[2] if item else "Exception" for item in caught}
        if names & BROAD_EXCEPTIONS:
            lines.append(node.lineno)
    return lines


def _project() -> dict[str, dict]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
