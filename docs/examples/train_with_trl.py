import sys

from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from gymrail.data.mixture import Member, Mixture
from gymrail.models.token_model import Sampling
from gymrail.registry import find
from gymrail_trl import RolloutFunction, group_dataset, groups_needed

checkpoint, output = sys.argv[1:]
mixture = Mixture([Member(find("word_math"), weight=2), Member(find("treasure_hunt"), weight=1)], seed=0)
rollouts = RolloutFunction({"train": mixture}, sampling=Sampling(max_output_tokens=48))
args = GRPOConfig(
    output, max_steps=4, per_device_train_batch_size=16, num_generations=8, shuffle_dataset=False, bf16=False
)

trainer = GRPOTrainer(
    model=AutoModelForCausalLM.from_pretrained(checkpoint),
    processing_class=AutoTokenizer.from_pretrained(checkpoint, padding_side="left"),
    args=args,
    rollout_func=rollouts,
    reward_funcs=[rollouts.reward],
    train_dataset=group_dataset(mixture, "train", groups_needed(args)),
)
trainer.train()
