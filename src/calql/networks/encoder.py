"""Encoder of observations: the input vector of a network from an observation, which may contain images.

An image is a leaf of type uint8 [B, H, W, C]. It passes through convolutions, a linear layer, layer normalisation and a
tanh (Yarats et al. 2021, as in ikostrikov/jaxrl2, `networks/encoders`); the resulting latent is concatenated with the
other leaves. Without images, the encoder has no parameters and only concatenates.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from calql.types import PyTree, is_image

ENCODERS = ("small", "impala")
LATENT = 50
"""Size of the latent of an image (Asap7772/jaxrl2_finetuning_benchmark)."""


def flatten_observation(observation: PyTree) -> jax.Array:
    """Concatenate the leaves of an observation without images along the last axis: [..., D] (sorted dict keys)."""
    return jnp.concatenate(jax.tree.leaves(observation), axis=-1)


class Encoder(nn.Module):
    """Encodes images as latents and concatenates the latents with the other leaves (sorted dict keys)."""

    kind: str = "small"
    """`small`: three convolutions and a spatial softmax, for a CPU; `impala`: residual blocks (Espeholt et al. 2018),
    for a GPU."""

    @nn.compact
    def __call__(self, observation: PyTree) -> jax.Array:
        """Observations [B, …] → [B, D]."""
        leaves = [self.latent(leaf) if is_image(leaf) else leaf for leaf in jax.tree.leaves(observation)]
        return flatten_observation(leaves)

    def latent(self, image: jax.Array) -> jax.Array:
        """Latent of images: [B, H, W, C] uint8 → [B, LATENT] in (−1, 1)."""
        x = image.astype(jnp.float32) / 255.0 - 0.5
        x = self.impala(x) if self.kind == "impala" else self.small(x)
        x = nn.Dense(LATENT, kernel_init=nn.initializers.orthogonal(2.0**0.5))(x)
        return jnp.tanh(nn.LayerNorm()(x))

    def small(self, x: jax.Array) -> jax.Array:
        """Two convolutions of stride 2, a 1 × 1 convolution and a spatial softmax over its 32 channels: → [B, 64]."""
        for channels in (16, 32):
            x = nn.relu(Convolution(channels, strides=2)(x))
        return spatial_softmax(Convolution(32, width=1)(x))

    def impala(self, x: jax.Array) -> jax.Array:
        """Three stages of a convolution, max pooling and two residual blocks: [B, H, W, C] → [B, D]."""
        for channels in (16, 32, 32):
            x = nn.max_pool(Convolution(channels)(x), (3, 3), strides=(2, 2), padding="SAME")
            for _ in range(2):
                inner = Convolution(channels)(nn.relu(x))
                x = x + Convolution(channels)(nn.relu(inner))
        return nn.relu(x).reshape(len(x), -1)


def spatial_softmax(x: jax.Array) -> jax.Array:
    """Mean pixel position of each channel, weighted by the softmax of its values: [B, H, W, C] → [B, 2 C] in [−1, 1].

    Levine et al. 2016 (arXiv 1504.00702), section 6.1.
    """
    _, height, width, _ = x.shape
    weights = jax.nn.softmax(x.reshape(len(x), height * width, -1), axis=1)
    rows, columns = jnp.meshgrid(jnp.linspace(-1, 1, height), jnp.linspace(-1, 1, width), indexing="ij")
    positions = jnp.stack([columns.ravel(), rows.ravel()], axis=1)
    return jnp.einsum("bpc,pd->bcd", weights, positions).reshape(len(x), -1)


class Convolution(nn.Module):
    """A convolution with SAME padding, orthogonal weights of gain √2 and zero biases."""

    channels: int
    """Number of output channels."""
    width: int = 3
    """Size of the square kernel."""
    strides: int = 1
    """Stride in pixels."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] → [B, ⌈H / strides⌉, ⌈W / strides⌉, channels]."""
        shape = (self.width, self.width, x.shape[-1], self.channels)
        kernel = self.param("kernel", nn.initializers.orthogonal(2.0**0.5), shape)
        convolve = convolve_by_matmul if jax.default_backend() == "cpu" else convolve_by_xla
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        return convolve(x, kernel, self.strides) + bias[None, None, None]


def convolve_by_xla(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    """Convolution of images [B, H, W, C] with a kernel [K, K, C, O], SAME padding: [B, ⌈H/strides⌉, ⌈W/strides⌉, O]."""
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (strides, strides), "SAME", dimension_numbers=layout)


def convolve_by_matmul(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    """The same convolution as one matrix multiplication of image patches.

    On a CPU, XLA's convolutions inside compiled loops are many times slower than matrix multiplications.
    """
    width, (out_h, out_w) = len(kernel), (-(-n // strides) for n in x.shape[1:3])
    padding = [max((out - 1) * strides + width - n, 0) for out, n in zip((out_h, out_w), x.shape[1:3], strict=True)]
    x = jnp.pad(x, ((0, 0), *((m // 2, m - m // 2) for m in padding), (0, 0)))
    shifted = [
        x[:, i : i + (out_h - 1) * strides + 1 : strides, j : j + (out_w - 1) * strides + 1 : strides]
        for i in range(width)
        for j in range(width)
    ]
    patches = jnp.concatenate(shifted, axis=-1)
    return (patches.reshape(-1, patches.shape[-1]) @ kernel.reshape(-1, kernel.shape[-1])).reshape(
        len(x), out_h, out_w, -1
    )
