"""`gymrail validate-trainer`: the checklist of a trainer's integration, run on a recipe with a small model."""
