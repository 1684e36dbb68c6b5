"""`gymrail version`: what is installed, for bug reports."""

from __future__ import annotations

import typer

from gymrail.cli.options import AsJson

PACKAGES = ("pyreqwest", "pydantic", "openai", "mcp", "torch", "transformers", "trl", "unsloth", "ray", "vllm")
"""Packages whose version explains a report; those that are not installed are left out."""


def version(
    as_json: AsJson = False,
) -> None:
    """Print the versions of Gymrail, Python and the packages that it works with."""
    import importlib.metadata
    import platform

    import gymrail
    from gymrail.cli.output import print_json

    versions = {"gymrail": gymrail.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if as_json:
        print_json(versions)
        return
    width = max(map(len, versions))
    for name, number in versions.items():
        typer.echo(f"{name:<{width}}  {number}")


def print_short(value: bool) -> None:
    """Serve `gymrail --version`."""
    if value:
        import gymrail

        typer.echo(gymrail.__version__)
        raise typer.Exit
