"""Installed packages that are only metadata: what is checked here is read from it, before anything is imported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

VERSIONS = {
    "unsloth": "2026.10.9",
    "unsloth_zoo": "2026.10.9",
    "trl": "1.15.0",
    "transformers": "5.17.0",
    "torch": "2.13.0+cpu",
    "datasets": "4.8.5",
    "peft": "0.21.2",
    "accelerate": "1.15.0",
}
PINS = (
    "torch<2.15.0,>=2.4.0",
    "trl!=0.19.0,<=1.15.0,>=0.18.2",
    "transformers!=5.0.0,<=5.17.0,>=4.52.4",
    "datasets!=4.0.*,<5.0.0,>=3.4.1",
    "mlx==0.32.4; sys_platform == 'darwin'",
    "trl<1; extra == 'old'",
)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that installs these packages' metadata; a version can be changed, or a package left out with
    None, and `modules` are put beside them."""
    monkeypatch.delenv("UNSLOTH_ALLOW_CPU", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)

    def install(*modules: str, **changed: str | None) -> Path:
        folder = tmp_path / "site"
        for name, version in (VERSIONS | changed).items():
            if version is None:
                continue
            info = folder / f"{name}-{version}.dist-info"
            info.mkdir(parents=True)
            pins = "".join(f"Requires-Dist: {pin}\n" for pin in PINS) if name == "unsloth" else ""
            (info / "METADATA").write_text(
                f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\nProvides-Extra: old\n{pins}",
                encoding="utf-8",
            )
        for module in modules:
            (folder / module).mkdir()
            (folder / module / "__init__.py").write_text("", encoding="utf-8")
        monkeypatch.syspath_prepend(folder)
        return folder

    return install
