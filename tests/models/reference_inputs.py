# SPDX-License-Identifier: MIT
"""The inputs of the reference outputs in references.npz: real texts and photographs, and numbers made here."""

import numpy as np

TEXTS = (
    "A cat sat on the mat.",
    "The kitten rested on a rug; it looked naïve & très content!",
    "Shall I compare thee to a summer's day? Thou art more lovely and more temperate.",
    "Stocks fell 3.5% on Monday (the tokenization's edge-cases: 日本語, \u00ad\u200b unaffable) ...",
)
NET_SIZES = {"pnet": 47, "rnet": 24, "onet": 48}
SAMPLE_RATES = (16_000, 8_000)


def photographs() -> np.ndarray:
    """Two photographs of scikit-learn, a temple and a flower, cut to uint8 [2, 224, 224, 3]."""
    from sklearn.datasets import load_sample_images

    return np.stack([image[100:324, 200:424] for image in load_sample_images().images])


def windows(size: int) -> np.ndarray:
    """Smooth random images for the nets of MTCNN, float32 [2, 3, size, size] in -1..1."""
    rng = np.random.Generator(np.random.Philox(7))
    phases, rates = rng.uniform(0, 6, (2, 3, 1, 1)), rng.uniform(0.1, 0.6, (2, 3, 1, 1))
    y, x = np.mgrid[:size, :size]
    return (np.sin(phases + rates * x) * np.cos(phases * rates * y)).astype(np.float32)


def audio(sample_rate: int) -> np.ndarray:
    """One second of a voice-like sound, buzzing syllables in noise: float32 [sample_rate] in -1..1."""
    t = np.arange(sample_rate) / sample_rate
    pitch = 150 * (t + 0.02 * np.sin(5 * t))
    buzz = sum(np.sin(2 * np.pi * k * pitch) / k for k in range(1, 12))
    noise = np.random.Generator(np.random.Philox(3)).normal(size=t.shape)
    return (0.12 * buzz * (1 + np.sin(2 * np.pi * 4 * t)) + 0.02 * noise).astype(np.float32)
