"""The paper's metrics, values of a critic against rollouts, and statistics over seeds."""
