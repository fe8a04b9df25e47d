"""How narrow the data are: numbers without units, from at most 2,000 sampled steps, observations standardised.

* *action noise* u: the share of the actions' variance that their states do not explain. Each action is predicted by the
  mean action of its state's 8 nearest neighbours in other episodes; 0 = a function of the state, 1 = independent of it.
  Few data in many dimensions make it too high.
* *behaviour spread* b: the standard deviation of what is left unexplained, over that of uniform actions in [−1, 1]
  (0.577). Gaussian noise of 0.1, 0.3 and 0.6 on the actions gives about 0.2, 0.5 and 0.9. Cal-QL corrects the values
  of actions outside the data, so this number tells how many of those there are.
* *start spread* and *effective dimension*: distance between starts relative to all states (0 = one start, 1 = starts
  are anywhere); and (Σλ)²/Σλ² over the eigenvalues λ of the states' correlations.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calql.data.arrays import located, named_leaves, state_at
from calql.types import Episode, PyTree, map_leaves

NEIGHBOURS = 8
SAMPLES = 2_000
COLUMNS = 256


def narrowness(episodes: Sequence[Episode], firsts: np.ndarray) -> dict[str, float]:
    """The measures above; `firsts` are the steps, numbered over all episodes, that count as starts."""
    from scipy.spatial.distance import cdist

    def features_at(steps: np.ndarray) -> np.ndarray:
        states = [state_at(*place) for place in located(episodes, steps)]
        return features(map_leaves(lambda *leaves: np.stack(leaves), *states))

    rng = np.random.default_rng(0)
    actions = np.clip(np.concatenate([e.actions for e in episodes]), -1.0, 1.0)
    episode = np.repeat(np.arange(len(episodes)), [e.length for e in episodes])
    chosen = np.sort(rng.permutation(len(actions))[:SAMPLES])
    states = features_at(chosen)
    center, scale = states.mean(axis=0), states.std(axis=0)
    used = scale > 1e-6 * np.maximum(1.0, np.abs(center))
    states = (states[:, used] - center[used]) / scale[used]
    eigenvalues = np.linalg.svd(states, compute_uv=False) ** 2
    starts = (features_at(rng.permutation(firsts)[:SAMPLES])[:, used] - center[used]) / scale[used]

    distance = cdist(states, states, "sqeuclidean")
    apart = episode[chosen] if episode[-1] else chosen  # a single episode can only be compared with itself
    distance[apart[:, None] == apart] = np.inf
    k = min(NEIGHBOURS, int(np.isfinite(distance).sum(axis=1).min()))
    noise = spread = 0.0
    if k:
        nearest = np.argpartition(distance, k - 1, axis=1)[:, :k]
        rest = actions[chosen] - actions[chosen][nearest].mean(axis=1)
        unexplained = (rest**2).mean() / (1.0 + 1.0 / k)  # a mean of k noisy actions is noisy, too
        noise = min(1.0, unexplained / max(actions[chosen].var(axis=0).mean(), 1e-12))
        spread = float(np.sqrt(3.0 * unexplained))
    return {
        "action_noise": float(noise),
        "behaviour_spread": spread,
        "start_spread": float(np.sqrt(starts.var(axis=0).mean())) if used.any() else 0.0,
        "effective_dimension": float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum()) if used.any() else 0.0,
    }


def features(observations: PyTree) -> np.ndarray:
    """[N, D] float64 of [N, …]: all leaves concatenated, of each at most 256 evenly spaced columns (images have
    more)."""
    columns = []
    for _, leaf in named_leaves("", observations):
        flat = leaf.reshape(len(leaf), -1)
        columns.append(flat[:, :: -(-flat.shape[1] // COLUMNS) or 1].astype(np.float64))
    return np.concatenate(columns, axis=1)
