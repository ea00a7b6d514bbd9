# SPDX-License-Identifier: MIT
"""Every public layer and initializer of torch.nn (2.13) has its like here, or a reason not to."""

import inspect

import pytest

from functorch_lite import nn
from functorch_lite.nn import initializers

torch = pytest.importorskip("torch", reason="a comparison with PyTorch")

# A loss has no parameters: it is a function, and its settings are arguments.
LOSSES = {
    "BCELoss": nn.bce,
    "BCEWithLogitsLoss": nn.bce_with_logits,
    "CTCLoss": nn.ctc_loss,
    "CosineEmbeddingLoss": nn.cosine_embedding,
    "CrossEntropyLoss": nn.cross_entropy,
    "GaussianNLLLoss": nn.gaussian_nll,
    "HingeEmbeddingLoss": nn.hinge_embedding,
    "HuberLoss": nn.huber,
    "KLDivLoss": nn.kl_div,
    "L1Loss": nn.l1,
    "LinearCrossEntropyLoss": nn.linear_cross_entropy,
    "MSELoss": nn.mse,
    "MarginRankingLoss": nn.margin_ranking,
    "MultiLabelMarginLoss": nn.multilabel_margin,
    "MultiLabelSoftMarginLoss": nn.multilabel_soft_margin,
    "MultiMarginLoss": nn.multi_margin,
    "NLLLoss": nn.nll,
    "NLLLoss2d": nn.nll,
    "PoissonNLLLoss": nn.poisson_nll,
    "SmoothL1Loss": nn.smooth_l1,
    "SoftMarginLoss": nn.soft_margin,
    "TripletMarginLoss": nn.triplet_margin,
    "TripletMarginWithDistanceLoss": nn.triplet_margin_with_distance,
}

OTHER_NAMES = {
    "AdaptiveLogSoftmaxWithLoss": nn.AdaptiveLogSoftmax,
    "Buffer": nn.buffer,
    "CrossMapLRN2d": nn.LocalResponseNorm,
    "FeatureAlphaDropout": nn.AlphaDropout,  # shared_axes
    "Parameter": nn.Array,
    "Softmax2d": nn.Softmax,  # axis=-3
    "UpsamplingBilinear2d": nn.Upsample,
    "UpsamplingNearest2d": nn.Upsample,
    **{
        f"{kind}Pad{n}d": nn.Pad
        for kind in ("Circular", "Constant", "Reflection", "Replication", "Zero")
        for n in (1, 2, 3)
    },
}

WITHOUT = {
    "Container": "a base class",
    "RNNBase": "a base class",
    "RNNCellBase": "a base class",
    "ParameterDict": "a dict of arrays is a field like any other",
    "ParameterList": "a list or tuple of arrays is a field like any other",
    "DataParallel": "vmap with an axis name",
    "LinearCrossEntropyOptions": "arguments of linear_cross_entropy",
    **{
        name: "shapes are known when a model is made"
        for name in (
            "LazyBatchNorm1d LazyBatchNorm2d LazyBatchNorm3d LazyConv1d LazyConv2d LazyConv3d LazyConvTranspose1d "
            "LazyConvTranspose2d LazyConvTranspose3d LazyInstanceNorm1d LazyInstanceNorm2d LazyInstanceNorm3d "
            "LazyLinear UninitializedBuffer UninitializedParameter"
        ).split()
    },
}

INITIALIZERS = {"eye": "identity", "trunc_normal": "truncated_normal"}


def test_every_layer_has_its_like():
    theirs = {name for name, value in vars(torch.nn).items() if inspect.isclass(value) and not name.startswith("_")}
    ours = {name for name in theirs if hasattr(nn, name)}
    named = set(LOSSES) | set(OTHER_NAMES) | set(WITHOUT)
    assert theirs - ours == named


def test_every_initializer_has_its_like():
    theirs = {name.removesuffix("_") for name in dir(torch.nn.init) if name.endswith("_") and not name.startswith("_")}
    for name in theirs:
        assert callable(getattr(initializers, INITIALIZERS.get(name, name)))
    jax = pytest.importorskip("jax", reason="a comparison with JAX")
    for name in dir(jax.nn.initializers):
        if name.islower() and not name.startswith("_"):
            assert callable(getattr(initializers, name))


# A function of a layer with parameters is that layer; the others by their names here.
FUNCTIONS = {
    "batch_norm": nn.BatchNorm2d,
    "binary_cross_entropy": nn.bce,
    "binary_cross_entropy_with_logits": nn.bce_with_logits,
    "feature_alpha_dropout": nn.AlphaDropout,
    "hardshrink": nn.hard_shrink,
    "hardsigmoid": nn.hard_sigmoid,
    "hardswish": nn.hard_swish,
    "hardtanh": nn.hard_tanh,
    "logsigmoid": nn.log_sigmoid,
    "multi_head_attention_forward": nn.MultiheadAttention,
    "native_channel_shuffle": nn.ChannelShuffle,
    "pad": nn.Pad,
    "softshrink": nn.soft_shrink,
    "tanhshrink": nn.tanh_shrink,
    "upsample_bilinear": nn.Upsample,
    "upsample_nearest": nn.Upsample,
}

FUNCTIONS_WITHOUT = {
    "conv_tbc": "Conv1d with its axes moved",
    "grouped_mm": "a kernel of one kind of GPU",
    "scaled_grouped_mm": "a kernel of one kind of GPU",
    "scaled_mm": "a kernel of one kind of GPU",
}

HELPERS = {"assert_int_or_pair", "boolean_dispatch", "handle_torch_function"}


def test_every_function_has_its_like():
    here = {name.lower() for name in dir(nn)}
    named = here | set(FUNCTIONS) | set(FUNCTIONS_WITHOUT)
    functions = torch.nn.functional
    for name in dir(functions):
        value = getattr(functions, name)
        in_place_or_private = name.startswith(("_", "has_torch")) or name.endswith("_") or name in HELPERS
        if in_place_or_private or inspect.isclass(value) or not inspect.isroutine(value):
            continue
        short = name.removesuffix("_loss").removesuffix("_with_indices")
        assert named & {short, short.replace("_", "")}, name
