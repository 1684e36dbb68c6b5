"""Takes our agent server's answers through NeMo RL's own NeMo Gym post-processing.

Runs in NeMo RL's environment: `post_process.py REQUEST ANSWER`, both JSON.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

from flattened import flattened, segments
from nemo_rl.algorithms.utils import get_tokenizer
from nemo_rl.environments.nemo_gym import NemoGym, extract_reward_components
from nemo_rl.experience.rollouts import _extract_mask_sample_flags


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    tokenizer = get_tokenizer({"name": request["tokenizer"]})
    process = NemoGym.__ray_metadata__.modified_class._postprocess_nemo_gym_to_nemo_rl_result
    actor = SimpleNamespace(cfg={})
    results = [
        process(actor, row, answer, tokenizer) for row, answer in zip(request["rows"], request["answers"], strict=True)
    ]
    masked = _extract_mask_sample_flags(results)
    samples = flattened([result["message_log"] for result in results], tokenizer.pad_token_id)
    answer = [
        {
            **sample,
            "segments": segments(result["message_log"]),
            "reward": result["full_result"]["reward"],
            "components": extract_reward_components(result["full_result"]),
            "masked": bool(flag),
        }
        for sample, result, flag in zip(samples, results, masked, strict=True)
    ]
    Path(sys.argv[2]).write_text(json.dumps(answer), encoding="utf-8")


main()
