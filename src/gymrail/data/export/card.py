"""The dataset card: what is in an export, where it came from, what was left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import yaml

from gymrail.data.export.compiler import Counts, Plan
from gymrail.data.export.sources import Environments
from gymrail.data.export.unpaired import balanced_weights
from gymrail.errors import InputError

_BINS = 10
_BAR = 40
_TITLES = {"sft": "SFT rows", "dpo": "DPO pairs", "kto": "KTO rows", "prm": "PRM rows", "rft": "RFT tasks"}


def summary_of(plan: Plan, counts: Counts, failed: int, version: str) -> dict[str, Any]:
    """Return what is known of an export, for machines: counts, settings, sources, licences.

    Args:
        failed: failed rollouts that lie beside the runs' rollouts.
        version: Gymrail's.
    """
    environments = Environments(plan.sources, plan.specs)
    summary: dict[str, Any] = {
        "kind": plan.kind.name,
        "for": plan.destination,
        "gymrail": version,
        "rows": counts.rows,
        "splits": {split: counts.splits[split] for split in plan.splits},
        "rollouts_read": counts.read,
        "failed_beside_them": failed,
        "removed": dict(counts.removed.most_common()),
        "settings": _settings(plan.kind),
        "selection": plan.selection.set_options,
        "keep_reasoning": plan.keep_reasoning,
        "rewards": {side: histogram(rewards) for side, rewards in counts.rewards.items()},
        "sources": [
            {"run": source.name, "rollouts": counts.runs[source.name], "environments": dict(source.versions)}
            for source in plan.sources
        ],
        "environments": [
            {"name": name, "version": made_by, "rows": rows, "licenses": licences_of(environments, name)}
            for (name, made_by), rows in sorted(counts.environments.items())
        ],
    }
    if plan.kind.name == "kto":
        good, bad = counts.labels[True], counts.labels[False]
        summary["labels"] = {"desirable": good, "undesirable": bad}
        summary["weights"] = balanced_weights(good, bad)
    return summary


def licences_of(environments: Environments, name: str) -> list[str]:
    """The licences that an environment's manifest names, its data's included; none where it cannot be loaded."""
    try:
        manifest = environments.find(name).manifest
    except InputError:
        return []
    found = [manifest.license, *(entry.license for entry in manifest.datasets)]
    return sorted({licence for licence in found if licence})


def histogram(counted: Mapping[float, int]) -> list[dict[str, float]]:
    """Return at most ten bins: each value by itself where there are few, ranges of equal width otherwise."""
    if len(counted) <= _BINS:
        return [{"from": value, "to": value, "count": count} for value, count in sorted(counted.items())]
    low, high = min(counted), max(counted)
    width = (high - low) / _BINS
    bins: Counter[int] = Counter()
    for value, count in counted.items():
        bins[min(_BINS - 1, int((value - low) / width))] += count
    return [
        {"from": round(low + number * width, 4), "to": round(low + (number + 1) * width, 4), "count": bins[number]}
        for number in range(_BINS)
    ]


def card_of(summary: Mapping[str, Any], data_files: Mapping[str, str]) -> str:
    """Return the README.md; `data_files` by split are what `datasets.load_dataset` reads, none for a saved dataset."""
    licences = sorted({licence for entry in summary["environments"] for licence in entry["licenses"]})
    head: dict[str, Any] = {"tags": ["gymrail", summary["kind"]]}
    if len(licences) == 1:
        head["license"] = licences[0].lower()
    if data_files:
        listed = [{"split": split, "path": file} for split, file in data_files.items()]
        head["configs"] = [{"config_name": "default", "data_files": listed}]
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {_TITLES[summary['kind']]} from rollouts",
        f"{summary['rows']:,} rows for {summary['for']}, made by `gymrail export {summary['kind']}` "
        f"(Gymrail {summary['gymrail']}) of {summary['rollouts_read']:,} rollouts. Each row's `lineage` names its run, "
        "rollout, task, and the environment with its version: a hash of its code, verifier included, manifest and "
        "settings.",
        _section("Splits", ("split", "rows"), summary["splits"].items() if len(summary["splits"]) > 1 else ()),
        _section("Sources", ("run", "rollouts read"), [(s["run"], s["rollouts"]) for s in summary["sources"]]),
        _section(
            "Environments",
            ("environment", "version", "rows", "licences"),
            [
                (e["name"] or "unknown", e["version"] or "unknown", e["rows"], ", ".join(e["licenses"]) or "not stated")
                for e in summary["environments"]
            ],
        ),
        _section("Left out", ("reason", "number"), _left_out(summary)),
        _section("Settings", ("setting", "value"), _set(summary)),
        *(_bars(side, bins) for side, bins in summary["rewards"].items()),
    ]
    if "weights" in summary:
        weights = summary["weights"]
        parts.append(
            f"## Weights\n\n{summary['labels']['desirable']:,} answers are good, "
            f"{summary['labels']['undesirable']:,} bad. Both sides count for the same with "
            f"`desirable_weight={weights['desirable_weight']:.4g}, "
            f"undesirable_weight={weights['undesirable_weight']:.4g}`."
        )
    return "\n\n".join(part for part in parts if part) + "\n"


def why_empty(plan: Plan, counts: Counts, failed: int) -> str:
    """Say of an export without rows which filter removed how many."""
    names = ", ".join(f"'{source.path}'" for source in plan.sources)
    if not counts.read:
        beside = f" {failed} failed, and a failed rollout is never exported." if failed else ""
        return f"There is no judged rollout in {names}.{beside}"
    reasons = "; ".join(f"{what}: {count}" for what, count in counts.removed.most_common())
    return f"None of {counts.read} rollouts in {names} makes a row of {plan.kind.name}. Removed by: {reasons}."


def _settings(kind: Any) -> dict[str, Any]:
    return {option.name: getattr(kind, option.name) for option in fields(kind)}


def _left_out(summary: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    rows = list(summary["removed"].items())
    if summary["failed_beside_them"]:
        rows.append(("failed, in failures.jsonl", summary["failed_beside_them"]))
    return rows


def _set(summary: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    chosen = {**summary["settings"], **summary["selection"], "keep_reasoning": summary["keep_reasoning"]}
    return [(f"`{name}`", f"`{value}`") for name, value in chosen.items() if value is not None]


def _section(title: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [f"| {' | '.join(_cell(value) for value in row)} |" for row in rows]
    if not lines:
        return ""
    return "\n".join([f"## {title}\n", f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *lines])


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")


def _bars(side: str, bins: Sequence[Mapping[str, float]]) -> str:
    most = max((entry["count"] for entry in bins), default=0)
    if not most:
        return ""
    lines = []
    for entry in bins:
        span = f"{entry['from']:g}" if entry["from"] == entry["to"] else f"{entry['from']:g} to {entry['to']:g}"
        bar = "█" * max(1, round(_BAR * entry["count"] / most)) if entry["count"] else ""
        lines.append(f"{span:>18}  {entry['count']:>10,}  {bar}".rstrip())
    title = "Rewards" if side == "rows" else f"Rewards of the {side} side"
    return "\n".join([f"## {title}\n", "```text", *lines, "```"])
