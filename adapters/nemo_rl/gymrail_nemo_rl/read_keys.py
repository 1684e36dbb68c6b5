"""Read from a NeMo RL checkout which keys its configuration has; runs where NeMo RL can be imported.

    NEMO_RL_SOURCE=CHECKOUT PYTHONPATH=CHECKOUT python -m gymrail_nemo_rl.read_keys config_keys.json

A key counts as known when the classes behind `MasterConfig` declare it or an example configuration that ours may
inherit from has it. NeMo RL itself takes any key in most places and leaves a misspelt one without effect.
"""

from __future__ import annotations

import json
import os
import sys
import types
import typing
from pathlib import Path
from typing import Any

from gymrail_nemo_rl.keys import EXAMPLES, PUBLISHED

_NAMES: dict[Any, str] = {
    bool: "bool", int: "int", float: "float", str: "str", type(None): "null", list: "list", dict: "dict",
}  # fmt: skip


def read_keys(source: Path) -> dict[str, Any]:
    """Return the key tree of each algorithm, as `config_keys.json` has it."""
    from nemo_rl.algorithms.dpo import MasterConfig as Dpo
    from nemo_rl.algorithms.grpo import MasterConfig as Grpo
    from nemo_rl.algorithms.sft import MasterConfig as Sft
    from nemo_rl.models.generation.vllm.config import VllmConfig
    from nemo_rl.utils.config import load_config, register_omegaconf_resolvers
    from omegaconf import OmegaConf

    register_omegaconf_resolvers()
    trees = {}
    for algorithm, cls in (("dpo", Dpo), ("grpo", Grpo), ("sft", Sft)):
        tree = _tree(cls)
        if algorithm == "grpo":
            # `MasterConfig` declares what all generation backends have in common; ours is vLLM.
            generation = tree["keys"]["policy"]["keys"]["generation"]["keys"]
            vllm = _without_required(_tree(VllmConfig))["keys"]
            generation |= {name: below for name, below in vllm.items() if name not in generation}
        for example in (EXAMPLES[algorithm], *(PUBLISHED.values() if algorithm == "grpo" else ())):
            written = OmegaConf.to_container(load_config(source / example), resolve=False)
            _add_written(tree, written)
        trees[algorithm] = tree
    return trees


def _tree(annotation: Any, seen: tuple[Any, ...] = ()) -> dict[str, Any]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if _said(origin) in ("NotRequired", "Required", "Annotated"):
        return _tree(arguments[0], seen)
    if origin in (typing.Union, types.UnionType):
        return _either([_tree(argument, seen) for argument in arguments])
    if origin is typing.Literal:
        return {"values": list(arguments)}
    if origin in (list, tuple):
        items = _tree(arguments[0], seen) if arguments else {}
        return {"types": ["list"], **({"items": items} if "keys" in items else {})}
    if annotation in seen:
        return {}
    fields = _fields(annotation)
    if fields is None:
        return {"types": [_NAMES[annotation]]} if annotation in _NAMES and annotation is not dict else {}
    below = (*seen, annotation)
    return {
        "keys": {name: _tree(kind, below) for name, (kind, _) in sorted(fields.items())},
        "required": sorted(name for name, (_, required) in fields.items() if required),
    }


def _without_required(tree: dict[str, Any]) -> dict[str, Any]:
    """NeMo RL completes vLLM's section itself: what its class requires need not stand in a file."""
    if "keys" not in tree:
        return tree
    return {**tree, "keys": {name: _without_required(below) for name, below in tree["keys"].items()}, "required": []}


def _fields(annotation: Any) -> dict[str, tuple[Any, bool]] | None:
    """A class's keys, each with its annotation and whether it must be there; None for what has no keys."""
    if hasattr(annotation, "model_fields"):
        return {name: (field.annotation, field.is_required()) for name, field in annotation.model_fields.items()}
    if not hasattr(annotation, "__required_keys__"):
        return None
    hints = typing.get_type_hints(annotation, include_extras=True)
    return {
        name: (kind, name in annotation.__required_keys__ and _said(typing.get_origin(kind)) != "NotRequired")
        for name, kind in hints.items()
    }


def _either(nodes: list[dict[str, Any]]) -> dict[str, Any]:
    if len(nodes) == 1 or not all(nodes):  # a node without content takes anything
        return nodes[0] if len(nodes) == 1 else {}
    found: dict[str, Any] = {}
    for name in ("types", "values"):
        values = [value for node in nodes for value in node.get(name, ())]
        if values:
            found[name] = sorted(set(values), key=str)
    keyed = [node for node in nodes if "keys" in node]
    if keyed:
        names = sorted({name for node in keyed for name in node["keys"]})
        found["keys"] = {
            name: _either([node["keys"][name] for node in keyed if name in node["keys"]]) for name in names
        }
        found["required"] = keyed[0]["required"] if len(keyed) == 1 else []
    items = [node["items"] for node in nodes if "items" in node]
    return found | ({"items": items[0]} if items else {})


def _add_written(tree: dict[str, Any], written: dict[str, Any]) -> None:
    for name, value in written.items():
        if name not in tree["keys"]:
            tree["keys"][name] = {}
            if isinstance(value, dict) and value:
                tree["keys"][name] = {"keys": {}, "required": []}
        below = tree["keys"][name]
        if isinstance(value, dict) and "keys" in below:
            _add_written(below, value)


def _said(kind: Any) -> str:
    return getattr(kind, "__name__", None) or getattr(kind, "_name", None) or ""


if __name__ == "__main__":
    found = read_keys(Path(os.environ["NEMO_RL_SOURCE"]))
    lines = [f"{json.dumps(name)}: {json.dumps(tree, sort_keys=True)}" for name, tree in sorted(found.items())]
    Path(sys.argv[1]).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
