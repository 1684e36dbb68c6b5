"""Train on Gymrail environments with Unsloth, on one GPU: `trainer: unsloth` in a recipe.

Unsloth puts its own trainers in place of TRL's, so everything but the loading of the policy is `gymrail_trl`. This
package imports neither Unsloth nor TRL before `start_unsloth`: Unsloth has to come first.
"""

from gymrail_unsloth.loading import load_policy, start_unsloth
from gymrail_unsloth.requirements import check_requirements
from gymrail_unsloth.train import train

__all__ = ["check_requirements", "load_policy", "start_unsloth", "train"]
