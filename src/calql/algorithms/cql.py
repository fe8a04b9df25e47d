"""Conservative Q-learning on top of SAC.

Kumar et al. 2020 (arXiv 2006.04779), Eq. 3.1 of the Cal-QL paper; the practical form after nakamotoo/Cal-QL,
`JaxCQL/conservative_sac.py`. Per critic i and state s, with U_j ~ Unif[−1, 1]^A, A_j ~ π(s), B_j ~ π(s′):

    z = { Q_i(s, U_j) + A log 2 } ∪ { bound(Q_i(s, A_j)) − log π(A_j|s) } ∪ { bound(Q_i(s, B_j)) − log π(B_j|s′) }
    gap_i = T logsumexp(z / T) − Q_i(s, a)
    loss_i = TD_i + w · mean gap_i                    or, with a target gap τ:   TD_i + α′ w (mean gap_i − τ)

`bound` is the identity here; it is the one term that Cal-QL overrides.

The gradient of gap_i is Σ_j p_j ∇Q_i(s, a_j) − ∇Q_i(s, a), with p_j the softmax of z/T and zero where `bound` holds.
It can be estimated without bias at a fraction of the cost: `cql_gradient_actions` draws a few of the actions from p and
`cql_every_nth_state` measures the gap on a part of the batch.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from calql.algorithms.actor_critic import ActorCriticState
from calql.algorithms.bounds import Count, CountOrZero, Finite, NonNegative, Positive, require_ordered
from calql.algorithms.sac import SAC
from calql.algorithms.steps import Metrics, descend, systematic_draws
from calql.networks import sample_actions
from calql.types import InputError, PyTree, Transition

VARIANTS: dict[str, dict[str, Any]] = {
    "official": dict(num_random_actions=10, num_policy_actions=10, num_next_actions=10, num_target_actions=10),
    "listing": dict(num_random_actions=4, num_policy_actions=4, num_next_actions=0, num_target_actions=1),
}
"""Named sets of sampled actions: the released code, and Listing 1 of the paper (4 random + 4 π(s), plain backup)."""


@dataclasses.dataclass(frozen=True)
class CQL(SAC):
    """SAC whose critics are pushed down on sampled actions and up on the data's actions."""

    cql_alpha: NonNegative = 5.0
    """w, the weight of the conservative term (also inside the Lagrange form)."""
    cql_target_gap: Finite | None = None
    """τ of the Lagrange form (0.8 in antmaze); None: fixed weight."""
    num_random_actions: CountOrZero = 10
    """Uniform actions U_j per state."""
    num_policy_actions: CountOrZero = 10
    """Actions A_j ~ π(s) per state."""
    num_next_actions: CountOrZero = 10
    """Actions B_j ~ π(s′) per state, evaluated at s; 0 in the paper's listing."""
    importance_sampling: bool = True
    """Subtract log densities inside the logsumexp; off: no correction, and the data action joins the logsumexp."""
    cql_temperature: Positive = 1.0
    """T of the logsumexp."""
    cql_clip: tuple[float, float] | None = None
    """Clip gap_i of each state to this range, whose ends may be infinite; None: no clip (the release)."""
    cql_every_nth_state: Count = 1
    """Measure the conservative term on every n-th state of a batch, from a random first one; 1: on all (the paper)."""
    cql_gradient_actions: Count | None = None
    """Sampled actions per state through which the gradient flows, drawn by their share of it; None: all (the paper)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ordered("cql_clip", self.cql_clip)

    @property
    def group(self) -> int:
        """Chunks hold as many transitions of each measured state."""
        return self.cql_every_nth_state

    @property
    def actions_per_state(self) -> int:
        """The data's action and all sampled ones."""
        return 1 + self.num_random_actions + self.num_policy_actions + self.num_next_actions

    def ood_actions(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """All sampled actions [B, N, A] in the order random, π(s), π(s′), and their log densities [B, N]."""
        random_key, policy_key, next_key = jax.random.split(key, 3)
        size, action_dim = batch.actions.shape
        uniform = jax.random.uniform(random_key, (size, self.num_random_actions, action_dim), minval=-1.0, maxval=1.0)
        actions = [uniform]
        log_density = [jnp.full(uniform.shape[:2], -action_dim * jnp.log(2.0))]
        for count, sample_key, observations in (
            (self.num_policy_actions, policy_key, batch.observations),
            (self.num_next_actions, next_key, batch.next_observations),
        ):
            if count:
                sampled, log_pi = sample_actions(sample_key, *self.pi(state.actor, observations), count=count)
                actions.append(sampled)
                log_density.append(log_pi)
        return jnp.concatenate(actions, axis=1), jnp.concatenate(log_density, axis=1)

    def reference_values(self, state: ActorCriticState, batch: Transition) -> jax.Array:
        """V^μ, which Cal-QL's bound compares with: the data's Monte-Carlo returns [B]."""
        return batch.returns

    def bound(self, q_policy: jax.Array, reference: jax.Array) -> jax.Array:
        """The value of policy actions [E, B, N] that is pushed down, given reference values [B]."""
        return q_policy

    def conservative_gap(
        self, q_ood: jax.Array, log_density: jax.Array, q_data: jax.Array, reference: jax.Array
    ) -> jax.Array:
        """gap_i averaged over the batch: q_ood [E, B, N], log_density [B, N], q_data [E, B], reference [B] → [E].

        The bound compares raw Q with raw reference values: it comes before the importance correction.
        """
        q_random, q_policy = jnp.split(q_ood, [self.num_random_actions], axis=-1)
        z = jnp.concatenate([q_random, self.bound(q_policy, reference)], axis=-1)
        z = z - log_density[None] if self.importance_sampling else jnp.concatenate([z, q_data[..., None]], axis=-1)
        soft_max = self.cql_temperature * jax.nn.logsumexp(z / self.cql_temperature, axis=-1)
        gap = jnp.clip(soft_max - q_data, *(self.cql_clip or (-jnp.inf, jnp.inf)))
        return self.weighted(gap, q_policy, reference).mean(axis=1)

    def weighted(self, gap: jax.Array, q_policy: jax.Array, reference: jax.Array) -> jax.Array:
        """gap_i of each state [E, B] as it enters the mean, given Q of policy actions [E, B, N] and reference [B]."""
        return gap

    def alpha_prime(self, log_alpha_prime: jax.Array) -> jax.Array:
        """α′ = clip(exp θ′, 0, 10⁶); θ′ starts at 1."""
        return jnp.clip(jnp.exp(log_alpha_prime), 0.0, 1e6)

    # -- the critics' loss and its estimate ----------------------------------------------------------------------------

    def critic_draws(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> tuple[jax.Array, ...]:
        """Targets [B], and for the M measured states sampled actions [M, N, A], log densities [M, N], uniforms [M]."""
        target_key, ood_key = jax.random.split(key)
        measured = self.measured(batch)
        uniform = jax.random.uniform(jax.random.fold_in(ood_key, 1), measured.rewards.shape)
        ood = jax.lax.stop_gradient(self.ood_actions(state, measured, ood_key))
        return self.target_q(state, batch, target_key), *ood, uniform

    def measured(self, batch: Transition) -> Transition:
        """The states [M, …] of a batch on which the conservative term is measured: every n-th."""
        return jax.tree.map(lambda x: x[:: self.cql_every_nth_state], batch)

    def critic_gradient(
        self, state: ActorCriticState, batch: Transition, key: jax.Array
    ) -> tuple[tuple[jax.Array, Metrics], PyTree]:
        """Critic loss, metrics and gradient; where not every state is measured, from a random first one."""
        n = self.cql_every_nth_state
        if batch.rewards.shape[0] % n:
            raise InputError(f"a batch of {batch.rewards.shape[0]} is no multiple of cql_every_nth_state={n}")
        if n > 1:
            first = jax.random.randint(jax.random.fold_in(key, 2), (), 0, n)
            batch = jax.tree.map(lambda x: jnp.roll(x, -first, axis=0), batch)
        return super().critic_gradient(state, batch, key)

    def critic_loss(
        self, critic: PyTree, state: ActorCriticState, batch: Transition, key: jax.Array, draws: tuple | None = None
    ) -> tuple[jax.Array, Metrics]:
        """TD error plus the conservative term, summed over the critics (Eq. 3.1, D.1)."""
        target, sampled, log_density, uniform = draws or self.critic_draws(state, batch, key)
        measured = self.measured(batch)
        reference = self.reference_values(state, measured)
        q_data, q_ood, gap = self.gap(critic, measured, sampled, log_density, reference, uniform)
        q_all = self.with_others(critic, q_data, batch)
        td_loss = jnp.square(q_all - target[None]).mean(axis=1).sum()
        if self.cql_target_gap is None:
            cql_loss = self.cql_alpha * gap.sum()
        else:
            weight = jax.lax.stop_gradient(self.alpha_prime(state.log_alpha_prime)) * self.cql_alpha
            cql_loss = weight * (gap - self.cql_target_gap).sum()
        q_random, q_policy, _ = jnp.split(
            q_ood, [self.num_random_actions, self.num_random_actions + self.num_policy_actions], axis=-1
        )
        return td_loss + cql_loss, {
            "td_loss": td_loss,
            "cql_loss": cql_loss,
            "cql_gap": gap.mean(),
            "q_data": q_all.mean(),
            "q_random": q_random.mean(),
            "q_policy": q_policy.mean(),
            "target_q": target.mean(),
            "bounding_rate": (q_policy < reference[None, :, None]).mean(),
        }

    def with_others(self, critic: PyTree, q_data: jax.Array, batch: Transition) -> jax.Array:
        """Q of the data's actions of the whole batch [E, B], given those of the measured states [E, M]."""
        n = self.cql_every_nth_state
        if n == 1:
            return q_data
        observations, actions = jax.tree.map(
            lambda x: x.reshape(-1, n, *x.shape[1:])[:, 1:].reshape(-1, *x.shape[1:]),
            (batch.observations, batch.actions),
        )
        others = self.q_values(critic, observations, actions).reshape(*q_data.shape, n - 1)
        return jnp.concatenate([q_data[..., None], others], axis=-1).reshape(len(q_data), -1)

    def gap(
        self,
        critic: PyTree,
        batch: Transition,
        sampled: jax.Array,
        log_density: jax.Array,
        reference: jax.Array,
        uniform: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Q(s, a) [E, M], Q of the sampled actions [E, M, N] and gap_i [E] of the measured states.

        With `cql_gradient_actions`, the values are the same, and the gradient flows through that many of a state's
        sampled actions. They are drawn in proportion to the share of each in the gradient of gap_i, which is the
        softmax of z/T, and zero where Cal-QL's bound or the clip holds; averaged over the critics, so that one draw
        serves all.
        """
        few = self.cql_gradient_actions
        q_data, q_ood = self.q_data_and(critic if few is None else jax.lax.stop_gradient(critic), batch, sampled)
        if few is None:
            return q_data, q_ood, self.conservative_gap(q_ood, log_density, q_data, reference)
        shares = self.gradient_shares(q_ood, log_density, q_data, reference)
        chosen, scale = systematic_draws(shares.mean(axis=0), uniform, few)
        weights = jnp.take_along_axis(shares, chosen[None], axis=-1) * scale[None]
        q_data, q_drawn = self.q_data_and(critic, batch, jnp.take_along_axis(sampled, chosen[..., None], axis=1))
        flow = (weights * (q_drawn - jax.lax.stop_gradient(q_drawn))).sum(axis=(1, 2))
        return q_data, q_ood, self.conservative_gap(q_ood, log_density, q_data, reference) + flow

    def q_data_and(self, critic: PyTree, batch: Transition, sampled: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Q(s, a) [E, M] and Q of sampled actions [E, M, N], in one batch through the critics."""
        q = self.q_values(critic, batch.observations, jnp.concatenate([batch.actions[:, None], sampled], axis=1))
        return q[..., 0], q[..., 1:]

    def gradient_shares(
        self, q_ood: jax.Array, log_density: jax.Array, q_data: jax.Array, reference: jax.Array
    ) -> jax.Array:
        """The derivative of gap_i by Q of each sampled action: [E, M, N]. Arguments: as `conservative_gap`."""
        return jax.grad(lambda q: self.conservative_gap(q, log_density, q_data, reference).sum())(q_ood)

    def lagrange_loss(self, log_alpha_prime: jax.Array, gap: jax.Array) -> jax.Array:
        """−α′ w (gap − τ): raises α′ while the gap is above its target."""
        assert self.cql_target_gap is not None
        return -self.alpha_prime(log_alpha_prime) * self.cql_alpha * (gap - self.cql_target_gap)

    def update(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> tuple[ActorCriticState, Metrics]:
        """The step of SAC; the Lagrange multiplier, where there is one, moves on the same pre-update values."""
        new_state, metrics = super().update(state, batch, key)
        if self.cql_target_gap is None:
            return new_state, metrics
        gradient = jax.grad(self.lagrange_loss)(state.log_alpha_prime, metrics["cql_gap"])
        new_state = descend(new_state, "log_alpha_prime", self.critic_lr, gradient)
        return new_state, metrics | {"alpha_prime": self.alpha_prime(new_state.log_alpha_prime)}
