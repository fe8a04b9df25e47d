"""The only place where time passes: phases, the loop, checkpoints."""
