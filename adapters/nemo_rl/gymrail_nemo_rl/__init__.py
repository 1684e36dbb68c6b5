"""Train on Gymrail environments with NVIDIA NeMo RL.

Nothing here imports NeMo RL until it is used: `train` runs in Gymrail's own environment and starts `launch` in NeMo
RL's, where `environment`, `dataset` and `launch` are imported.
"""
