# SPDX-License-Identifier: MIT
"""Silero's voice activity detector: how likely there is speech, in each 32 ms of audio.

    a chunk with the samples before it -> spectrum -> 4 convolutions -> LSTM, whose state goes on -> probability

Source: https://github.com/snakers4/silero-vad (MIT licence), version 6.2.3.
"""

from typing import Any

import numpy as np

import functorch_lite.numpy as fnp
from functorch_lite import lax, nn, random
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.files import FilePath
from functorch_lite.interop import load_torch
from functorch_lite.models.weights import PipPackage, package_files
from functorch_lite.transforms import eval_shape, jit
from functorch_lite.transforms.arguments import on_its_device

_HIDDEN = 128
_CHUNKS = {16_000: 512, 8_000: 256}  # samples a second -> samples in 32 ms

State = tuple[nn.Array, nn.Array]


class SileroVAD(nn.Module):
    """`model(audio, state) -> (probability [batch], state)` of `chunk` samples and the `context` ones before them.

    sample_rate: 16,000 or 8,000 Hz; chunk is 512 or 256 samples, context an eighth of it. audio: float
    [batch, context + chunk] in -1..1. state: h and c of the LSTM, each [batch, 128]; None at the beginning.

    Raises ArgumentError for another rate, ShapeError for another length.
    """

    stft: nn.Conv1d
    convs: tuple[nn.Conv1d, ...]
    rnn: nn.LSTMCell
    out: nn.Conv1d
    sample_rate: int
    chunk: int
    context: int

    def __init__(self, sample_rate: int = 16_000, *, key: nn.Array):
        if sample_rate not in _CHUNKS:
            raise ArgumentError(f"SileroVAD: `sample_rate` should be one of {[*_CHUNKS]}, but is {sample_rate}.")
        self.sample_rate, self.chunk = sample_rate, _CHUNKS[sample_rate]
        self.context = self.chunk // 8
        n_fft = self.chunk // 2
        n_frequencies = n_fft // 2 + 1
        first, second, last, *keys = random.split(key, 7)
        self.stft = nn.Conv1d(1, 2 * n_frequencies, n_fft, n_fft // 2, bias=False, key=first)
        sizes = ((n_frequencies, 128, 1), (128, 64, 2), (64, 64, 2), (64, _HIDDEN, 1))
        self.convs = tuple(nn.Conv1d(m, n, 3, s, padding=1, key=k) for (m, n, s), k in zip(sizes, keys, strict=True))
        self.rnn = nn.LSTMCell(_HIDDEN, _HIDDEN, key=second)
        self.out = nn.Conv1d(_HIDDEN, 1, 1, key=last)

    def __call__(self, audio: nn.Array, state: State | None = None) -> tuple[nn.Array, State]:
        if audio.ndim != 2 or audio.shape[1] != self.context + self.chunk:
            raise ShapeError(f"SileroVAD: expected [batch, {self.context + self.chunk}], got {audio.shape}.")
        x = self._spectrum(audio)
        for conv in self.convs:
            x = nn.relu(conv(x))
        h, c = self.rnn(x[..., 0], state)
        return nn.sigmoid(self.out(nn.relu(h)[..., None]))[:, 0, 0], (h, c)

    def _spectrum(self, audio: nn.Array) -> nn.Array:
        """[batch, context + chunk] -> magnitudes [batch, chunk / 4 + 1, 4] of the short-time Fourier transform."""
        padded = fnp.pad(audio, ((0, 0), (0, self.context)), mode="reflect")
        real, imaginary = fnp.split(self.stft(padded[:, None, :]), 2, axis=1)
        return fnp.sqrt(real * real + imaginary * imaginary)

    @on_its_device
    def probabilities(self, audio: nn.Array) -> nn.Array:
        """Audio float [batch, samples] in -1..1 -> how likely there is speech [batch, ceil(samples / chunk)]."""
        batch, n = audio.shape
        n_chunks = -(-n // self.chunk)
        padded = fnp.pad(audio, ((0, 0), (self.context, n_chunks * self.chunk - n)))
        starts = range(0, n_chunks * self.chunk, self.chunk)
        chunks = fnp.stack([padded[:, i : i + self.context + self.chunk] for i in starts])
        zeros = fnp.zeros((batch, _HIDDEN), audio.dtype)

        def step(state, chunk):
            probability, state = self(chunk, state)
            return state, probability

        _, out = lax.scan(step, (zeros, zeros), chunks)
        return fnp.transpose(out)


@nn.state_names.register
def _(module: SileroVAD) -> dict[str, Any]:
    convs = {f"encoder.{i}.reparam_conv": f"convs.{i}" for i in range(len(module.convs))}
    return {"stft.forward_basis_buffer": "stft.weight", **convs, "decoder.rnn": "rnn", "decoder.decoder.2": "out"}


@jit
def _probabilities(model: SileroVAD, audio: nn.Array) -> nn.Array:
    return model.probabilities(audio)


def speech_probabilities(model: SileroVAD, audio: nn.Array) -> nn.Array:
    """How likely there is speech, float32 [n], in each chunk of 32 ms of audio float [samples] in -1..1, compiled.

    Raises ShapeError when the audio has more than one axis.
    """
    if audio.ndim != 1:
        raise ShapeError(f"speech_probabilities: expected [samples], got {audio.shape}.")
    n_chunks = -(-audio.shape[0] // model.chunk)
    padded = fnp.pad(audio.astype(np.float32), (0, _rounded(n_chunks) * model.chunk - audio.shape[0]))
    return _probabilities(model, padded[None])[0, :n_chunks]


def _rounded(n: int) -> int:
    """The next power of two: few lengths, so few compilations."""
    return 1 << max(n - 1, 0).bit_length()


SILERO_VAD = PipPackage(
    requirement="silero-vad==6.2.3",
    wheel_sha256="7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
    folder="silero_vad/data",
    sha256={"silero_vad.jit": "e1122837f4154c511485fe0b9c64455f7b929c96fbb8d79fbdb336383ebd3720"},
)
_PREFIXES = {16_000: "_model.", 8_000: "_model_8k."}


def silero_vad(sample_rate: int = 16_000, *, data_dir: FilePath | None = None) -> SileroVAD:
    """The detector with its trained weights, 0.3 million parameters, for audio of 16,000 or 8,000 Hz.

    `speech_probabilities(model, audio)` runs it. Its 2.3 MB come from the Python package `silero-vad`, found or fetched
    as `functorch_lite.models.weights` says; `data_dir` is the folder that keeps them.

    Raises DataError when the file cannot be had or is damaged, ArgumentError for another rate.
    """
    model = eval_shape(lambda key: SileroVAD(sample_rate, key=key), random.key(0))
    (name,) = SILERO_VAD.sha256
    prefix = _PREFIXES[sample_rate]
    tensors = load_torch(package_files(SILERO_VAD, data_dir=data_dir) / name)
    return nn.load_state_dict(model, {k.removeprefix(prefix): x for k, x in tensors.items() if k.startswith(prefix)})
