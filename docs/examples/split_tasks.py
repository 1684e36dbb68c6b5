from pathlib import Path

from gymrail.data.contamination import BenchmarkIndex
from gymrail.data.splits import split_files

report = split_files(
    [Path("all.jsonl")],
    Path("split"),
    {"train": 0.8, "validation": 0.2},
    by="document",
    benchmarks=BenchmarkIndex.read([Path("benchmark.jsonl")]),
    drop_contaminated=True,
)
print(report.splits, report.contaminated)
