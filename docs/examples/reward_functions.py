import sys

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from gymrail.verifiers.exact import ExactAnswer
from gymrail.verifiers.math import MathVerify
from gymrail.verifiers.reward import reward_function

checkpoint, output = sys.argv[1:]
rows = {"prompt": [f"What is {n} + 1?" for n in range(8)], "expected_answer": [str(n + 1) for n in range(8)]}
trainer = GRPOTrainer(
    model=AutoModelForCausalLM.from_pretrained(checkpoint),
    processing_class=AutoTokenizer.from_pretrained(checkpoint, padding_side="left"),
    args=GRPOConfig(
        output, max_steps=1, per_device_train_batch_size=8, num_generations=4, max_completion_length=8, bf16=False
    ),
    reward_funcs=[reward_function(MathVerify()), reward_function(ExactAnswer("boxed"), name="boxed")],
    train_dataset=Dataset.from_dict(rows),
)
trainer.train()
