"""Turn a run into training data: SFT conversations, then DPO pairs for NeMo RL."""

import sys

from gymrail.data.export import Dpo, Selection, Sft, export


def main(run: str, folder: str) -> None:
    good = Selection(min_reward=1.0, dedup="exact", max_per_task=4)
    sft = export([run], f"{folder}/sft", Sft(), selection=good)
    dpo = export([run], f"{folder}/dpo", Dpo(rule="step"), destination="nemo-rl")
    for summary in (sft, dpo):
        print(summary["rows"], "rows in", summary["output"], summary["removed"])


if __name__ == "__main__":
    main(*sys.argv[1:])
