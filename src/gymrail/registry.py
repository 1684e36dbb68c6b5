"""Finding environments: by name (ours, or a package's entry point in the group `gymrail.environments`), by folder, by
file.

find("session_counter")    find("./my_environment")    find("my_env.py")    find("my_env.py:Counter")
find("http://localhost:8000/session_counter#tasks.jsonl")    find("http://one:8000,http://two:8000#tasks.jsonl")
find("gymnasium:FrozenLake-v1")    find("aviary:gsm8k")     # environments of other libraries: gymrail.bridges
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from gymrail.bridges import BRIDGES, find_bridged, is_bridged
from gymrail.environment import Environment, ToolServer
from gymrail.errors import InputError, did_you_mean
from gymrail.spec import EnvironmentSpec, Manifest

GROUP = "gymrail.environments"
"""Entry points of this group name a package whose sub-packages are environments."""


def find(name: str) -> EnvironmentSpec:
    """Load an environment by name, path, address or bridge; for an address GYMRAIL_KEY holds the server's key.

    Raises:
        InputError: there is none; the text names the nearest.
    """
    if name.startswith(("http://", "https://")):
        from gymrail.clients.discover import find_remote  # it needs this module's neighbours, not the other way round

        # A name is all that a command line, a recipe and a worker process have, and a key must not stand in a name.
        spec = find_remote(name, key=os.environ.get("GYMRAIL_KEY"))
        spec.source = name
        return spec
    if is_bridged(name):
        return find_bridged(name)
    path, _, class_name = name.partition(":")
    if path.endswith(".py") or "/" in path or path in (".", "..") or (Path(path) / "environment.py").is_file():
        return _from_path(Path(path), class_name or None)
    known = environment_folders()
    if path not in known:
        raise InputError(
            f"No environment named {path!r}. {did_you_mean(path, [*known, *BRIDGES] if class_name else known)} "
            "`gymrail list` shows them all; a path works too."
        )
    package, folder = known[path]
    module = importlib.import_module(f"{package}.{path}.environment")
    return _build(path, module, folder, class_name or None)


def name_of(source: str) -> str:
    """Return the name of the environment that `find(source)` loads; what stands behind a bridge is loaded for it.

    Raises:
        InputError: there is none.
    """
    return find(source).name if is_bridged(source) else Path(source.partition(":")[0]).stem


def environment_folders() -> dict[str, tuple[str, Path]]:
    """Return every installed environment: name -> (package, folder). Reads no environment's code."""
    return dict(_folders(GROUP, "gymrail_environments", "environment.py"))


def find_tool_server(name: str) -> type[ToolServer]:
    """Load a tool server of `gymrail_mcp_servers` by name.

    Raises:
        InputError: there is none; the text names the nearest.
    """
    known = tool_server_folders()
    if name not in known:
        raise InputError(f"No tool server named {name!r}. {did_you_mean(name, known)}")
    package, _ = known[name]
    module = importlib.import_module(f"{package}.{name}.server")
    return _only_class(module, ToolServer, None)


def tool_server_folders() -> dict[str, tuple[str, Path]]:
    """Return every installed tool server: name -> (package, folder). Reads no server's code."""
    return dict(_folders("gymrail.mcp_servers", "gymrail_mcp_servers", "server.py"))


def _folders(group: str, default_package: str, marker: str) -> Iterator[tuple[str, tuple[str, Path]]]:
    packages = {default_package, *(point.value for point in importlib.metadata.entry_points(group=group))}
    for package in sorted(packages):
        found = importlib.util.find_spec(package)
        for root in (found.submodule_search_locations or ()) if found else ():
            for folder in sorted(Path(root).iterdir()):
                if (folder / marker).is_file():
                    yield folder.name, (package, folder)


def _from_path(path: Path, class_name: str | None) -> EnvironmentSpec:
    file = path / "environment.py" if path.is_dir() else path
    if not file.is_file():
        raise InputError(
            f"No environment at '{path}': '{file}' does not exist. `gymrail new environment NAME` writes one."
        )
    file = file.resolve()
    is_folder = file.name == "environment.py"
    # The name is unique per file, so that two environments in files of one name do not mix, and stays the same on
    # reload for pickling.
    own_name = file.parent.name if is_folder else file.stem
    module_name = f"_gymrail_{own_name}_{hashlib.blake2b(str(file).encode(), digest_size=4).hexdigest()}"
    if is_folder:
        module_name = _as_package(module_name, file.parent)
    stamp = file.stat().st_mtime_ns, file.stat().st_size
    module = sys.modules.get(module_name)
    if module is None or getattr(module, "stamp", None) != stamp:
        module = _load(module_name, file)
        module.__dict__["stamp"] = stamp
    return _build(file.parent.name if is_folder else file.stem, module, file.parent if is_folder else file, class_name)


def _as_package(name: str, folder: Path) -> str:
    """Make the folder a package, so that `from .verify import ...` works in it; edited since it was loaded, it is
    loaded again."""
    stamp = tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*.py")))
    if getattr(sys.modules.get(name), "stamp", None) != stamp:
        for loaded in [module for module in sys.modules if module == name or module.startswith(f"{name}.")]:
            del sys.modules[loaded]
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        package.__dict__["stamp"] = stamp
        sys.modules[name] = package
        importlib.invalidate_caches()
    return f"{name}.environment"


def _load(name: str, file: Path) -> ModuleType:
    found = importlib.util.spec_from_file_location(name, file)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # pydantic resolves annotations through it
    loaded = False
    try:
        found.loader.exec_module(module)
        loaded = True
    finally:
        if not loaded:
            del sys.modules[name]
    return module


def _build(name: str, module: ModuleType, path: Path, class_name: str | None) -> EnvironmentSpec:
    cls = _only_class(module, Environment, class_name)
    manifest_path = path / "environment.yaml" if path.is_dir() else path.with_suffix(".yaml")
    manifest = Manifest.read(manifest_path) if manifest_path.is_file() else Manifest()
    return EnvironmentSpec(name, cls, manifest, path=path)


def _only_class(module: ModuleType, kind: type[Any], class_name: str | None) -> Any:
    classes = {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, kind) and value.__module__ == module.__name__
    }
    if class_name is not None:
        if class_name not in classes:
            raise InputError(
                f"{module.__file__} has no {kind.__name__} named {class_name!r}. {did_you_mean(class_name, classes)}"
            )
        return classes[class_name]
    leaves = [value for value in classes.values() if not any(value in other.__mro__[1:] for other in classes.values())]
    if len(leaves) != 1:
        names = ", ".join(value.__name__ for value in leaves) or "none"
        raise InputError(
            f"{module.__file__} defines {names}; it must define one {kind.__name__}, or be named as FILE.py:CLASS."
        )
    return leaves[0]
