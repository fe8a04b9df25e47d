"""Running an experiment: phases, the loop, evaluations, checkpoints."""
