"""Training data from rollouts: a compiler from any number of runs to SFT, DPO, KTO, PRM and RFT rows.

    export(["runs/a", "runs/b"], "data/sft", Sft(), selection=Selection(min_reward=1.0, dedup="exact"))
    export(["runs/a"], "data/dpo", Dpo(rule="step"), destination="nemo-rl")

and the same in memory, from rollouts:

    to_dataset(preference_rows(run.rollouts(), margin=0.5))

A failed rollout is never exported: nobody knows whether it was good.
"""

from gymrail.data.export.arrow import to_dataset
from gymrail.data.export.pairs import Dpo
from gymrail.data.export.passrate import Rft
from gymrail.data.export.rows import preference_rows, sft_rows, token_rows
from gymrail.data.export.selection import Selection
from gymrail.data.export.sft import Sft
from gymrail.data.export.steps import Prm
from gymrail.data.export.unpaired import Kto
from gymrail.data.export.write import export
from gymrail.data.jsonl import write_jsonl

__all__ = [
    "Dpo", "Kto", "Prm", "Rft", "Selection", "Sft", "export", "preference_rows", "sft_rows", "to_dataset",
    "token_rows", "write_jsonl",
]  # fmt: skip
