# SPDX-License-Identifier: MIT
"""examples/char_gpt.py: a GPT of nanoGPT's CPU size with AdamW and clipping, context 64, batch 12, 65 characters."""

import math

import numpy as np

from benchmarks.trainers.common import Run, Trainer, count, example, jax_run, our_run, torch_run

N_LAYERS, N_HEADS, WIDTH, CONTEXT, BATCH, VOCABULARY = 4, 4, 128, 64, 12, 65
B1, B2, DECAY, CLIP, RATE = 0.9, 0.99, 0.1, 1.0, 1e-3


def _rate(step: int) -> float:
    """The learning rate as a share of RATE: 100 steps up, then a cosine down to a tenth at step 2000."""
    return step / 100 if step < 100 else 0.1 + 0.45 * (1 + math.cos(math.pi * (step - 100) / 1900))


def _batches():
    rng = np.random.default_rng(0)
    ids = np.repeat(rng.integers(0, VOCABULARY, 5000), 2).astype(np.int32)  # every second character can be told
    starts = rng.integers(0, len(ids) - CONTEXT, (20, BATCH, 1))
    windows = [ids[s + np.arange(CONTEXT + 1)] for s in starts]
    return [(w[:, :-1], w[:, 1:]) for w in windows]


def _ours() -> Run:
    gpt = example("char_gpt")
    model = gpt.GPT(VOCABULARY, key=gpt.fl.random.key(0))
    opt = gpt.optimizer(2000)
    return our_run(gpt.make_train_step(opt), gpt.State(model, opt.init(model)), _batches(), count(model))


def _jax() -> Run:
    import jax
    import jax.numpy as jnp
    import optax

    rng = np.random.default_rng(0)

    def matrix(*shape):
        return (rng.standard_normal(shape) * 0.02).astype(np.float32)

    def block():
        weights = {"q": matrix(WIDTH, WIDTH), "k": matrix(WIDTH, WIDTH), "v": matrix(WIDTH, WIDTH),
                   "out": matrix(WIDTH, WIDTH), "up": matrix(WIDTH, 4 * WIDTH), "down": matrix(4 * WIDTH, WIDTH)}
        return weights | {"norm1": np.ones(WIDTH, np.float32), "norm2": np.ones(WIDTH, np.float32)}

    params = {"tokens": matrix(VOCABULARY, WIDTH), "positions": matrix(CONTEXT, WIDTH),
              "norm": np.ones(WIDTH, np.float32), "blocks": [block() for _ in range(N_LAYERS)]}

    def norm(x, scale):
        return jax.nn.standardize(x, epsilon=1e-5) * scale

    def attend(p, x):
        q, k, v = ((x @ p[name]).reshape(*x.shape[:2], N_HEADS, -1) for name in "qkv")
        return jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape) @ p["out"]

    def loss(params, inputs, targets):
        x = params["tokens"][inputs] + params["positions"]
        for p in params["blocks"]:
            x = x + attend(p, norm(x, p["norm1"]))
            x = x + jax.nn.gelu(norm(x, p["norm2"]) @ p["up"], approximate=False) @ p["down"]
        logits = norm(x, params["norm"]) @ params["tokens"].T
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

    def is_matrix(params):
        return jax.tree.map(lambda p: jnp.ndim(p) >= 2, params)

    rate = optax.warmup_cosine_decay_schedule(0.0, RATE, 100, 2000, 1e-4)
    adamw = optax.adamw(rate, B1, B2, weight_decay=DECAY, mask=is_matrix)
    return jax_run(loss, params, optax.chain(optax.clip_by_global_norm(CLIP), adamw), _batches())


def _torch(compiled: bool) -> Run:
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
            self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
            self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

        def forward(self, x):
            batch, length, _ = x.shape
            heads = self.qkv(self.norm1(x)).view(batch, length, 3, N_HEADS, -1).permute(2, 0, 3, 1, 4)
            y = functional.scaled_dot_product_attention(*heads, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(x.shape))
            return x + self.down(functional.gelu(self.up(self.norm2(x))))

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.positions = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(CONTEXT, WIDTH)
            self.blocks = nn.Sequential(*(Block() for _ in range(N_LAYERS)))
            self.norm = nn.LayerNorm(WIDTH, bias=False)
            for table in (self.tokens, self.positions):
                nn.init.normal_(table.weight, std=0.02)

        def forward(self, ids):
            x = self.blocks(self.tokens(ids) + self.positions.weight)
            return self.norm(x) @ self.tokens.weight.T

    model = GPT()
    groups = [{"params": [p for p in model.parameters() if p.ndim >= 2]},
              {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, RATE, (B1, B2), weight_decay=DECAY)
    adamw.register_step_pre_hook(lambda *_: nn.utils.clip_grad_norm_(model.parameters(), CLIP) and None)
    schedule = torch.optim.lr_scheduler.LambdaLR(adamw, _rate)
    adamw.register_step_post_hook(lambda *_: schedule.step())

    def loss(inputs, targets):
        return functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

    batches = [tuple(part.astype(np.int64) for part in batch) for batch in _batches()]
    return torch_run(model, loss, adamw, batches, compiled)


TRAINER = Trainer("char_gpt", _ours, _jax, _torch)
