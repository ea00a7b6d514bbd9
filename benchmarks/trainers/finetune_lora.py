# SPDX-License-Identifier: MIT
"""examples/finetune_lora.py: adapters of rank 8 on a BERT of MiniLM's size, not pretrained; 48 tokens, batch 32."""

import numpy as np

from benchmarks.trainers.common import Run, Trainer, dense, example, our_run, torch_run

BATCH, LENGTH, RANK, STEPS, RATE, DROPOUT = 32, 48, 8, 400, 1e-3, 0.1
WORDS, WIDTH, HEADS, LAYERS, INNER = 30522, 384, 12, 6, 1536


def _batches():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(8):
        mask = (np.arange(LENGTH) < rng.integers(8, LENGTH + 1, (BATCH, 1))).astype(np.int32)
        ids = rng.integers(1, WORDS, (BATCH, LENGTH)).astype(np.int32) * mask
        found.append((ids, mask, (ids[:, 0] % 2).astype(np.int32)))
    return found


def _ours() -> Run:
    trainer = example("finetune_lora")
    fl, nn, optim = trainer.fl, trainer.nn, trainer.optim
    keys = fl.random.split(fl.random.key(0), 4)
    encoder = trainer.models.Bert(trainer.models.bert.BertConfig(), pooler=False, key=keys[0])
    adapted = nn.lora(encoder, RANK, 2 * RANK, where=trainer.ADAPTED, key=keys[1])
    model = trainer.Classifier(adapted, nn.Linear(WIDTH, 2, key=keys[2]))
    trained, frozen = nn.partition(model, trainer.TRAINED)
    rate = optim.cosine_decay(RATE, STEPS, warmup=STEPS // 10)
    opt = optim.chain(optim.clip_by_global_norm(1.0), optim.adamw(rate, weight_decay=0.01))
    state = trainer.State(trained, opt.init(trained), keys[3])
    return our_run(trainer.make_train_step(opt, frozen), state, _batches(), trainer.size(trained))


def _torch(compiled: bool) -> Run:
    import torch
    from torch import nn
    from torch.nn import functional

    class Adapted(nn.Linear):
        def __init__(self):
            super().__init__(WIDTH, WIDTH)
            self.down = nn.Parameter(torch.randn(RANK, WIDTH) * WIDTH**-0.5)
            self.up = nn.Parameter(torch.zeros(WIDTH, RANK))

        def forward(self, x):
            return super().forward(x) + 2 * ((x @ self.down.T) @ self.up.T)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v, self.out = Adapted(), nn.Linear(WIDTH, WIDTH), Adapted(), nn.Linear(WIDTH, WIDTH)
            self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
            self.norm1, self.norm2 = nn.LayerNorm(WIDTH, 1e-12), nn.LayerNorm(WIDTH, 1e-12)
            self.drop = nn.Dropout(DROPOUT)

        def forward(self, x, seen):
            q, k, v = (p(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for p in (self.q, self.k, self.v))
            y = functional.scaled_dot_product_attention(q, k, v, seen, dropout_p=DROPOUT)
            x = self.norm1(x + self.drop(self.out(y.transpose(1, 2).flatten(2))))
            return self.norm2(x + self.drop(self.down(functional.gelu(self.up(x)))))

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.positions = nn.Embedding(WORDS, WIDTH), nn.Parameter(torch.randn(512, WIDTH) * 0.02)
            self.kind, self.norm = nn.Parameter(torch.randn(2, WIDTH) * 0.02), nn.LayerNorm(WIDTH, 1e-12)
            self.blocks, self.head = nn.ModuleList(Block() for _ in range(LAYERS)), nn.Linear(WIDTH, 2)
            self.drop = nn.Dropout(DROPOUT)

        def forward(self, ids, mask):
            x = self.drop(self.norm(self.words(ids) + self.positions[:LENGTH] + self.kind[0]))
            for block in self.blocks:
                x = block(x, mask[:, None, None, :] > 0)
            weights = mask[..., None].float()
            return self.head(functional.normalize((x * weights).sum(1) / weights.sum(1), dim=-1))

    model = Classifier()
    for name, p in model.named_parameters():
        adapter = ".q." in name or ".v." in name
        p.requires_grad_(name.startswith("head") or (adapter and name.endswith((".down", ".up"))))
    trained = [p for p in model.parameters() if p.requires_grad]
    adamw = torch.optim.AdamW(trained, RATE, weight_decay=0.01)

    def clip(*_) -> None:
        nn.utils.clip_grad_norm_(trained, 1.0)

    adamw.register_step_pre_hook(clip)

    def loss(ids, mask, labels):
        return functional.cross_entropy(model(ids, mask), labels)

    batches = [(ids.astype(np.int64), mask, labels.astype(np.int64)) for ids, mask, labels in _batches()]
    return torch_run(model, loss, adamw, batches, compiled)


def _jax() -> Run:
    import jax
    import jax.numpy as jnp
    import optax

    from benchmarks.trainers import jax_layers as layers
    from benchmarks.trainers.common import jax_run

    rng = np.random.default_rng(0)

    def matrix(*shape):
        return (rng.standard_normal(shape) * 0.02).astype(np.float32)

    sizes = {n: (WIDTH, WIDTH) for n in ("q", "k", "v", "out")} | {"up": (WIDTH, INNER), "down": (INNER, WIDTH)}
    frozen = {"words": matrix(WORDS, WIDTH), "positions": matrix(512, WIDTH), "kind": matrix(2, WIDTH),
              "blocks": [{n: dense(rng, *size) for n, size in sizes.items()} for _ in range(LAYERS)]}
    frozen = jax.tree.map(jnp.asarray, frozen)
    adapters = [{n: {"down": matrix(WIDTH, RANK), "up": np.zeros((RANK, WIDTH), np.float32)} for n in "qv"}
                for _ in range(LAYERS)]
    params = {"adapters": adapters, "head": dense(rng, WIDTH, 2)}

    def drop(key, x):
        return jnp.where(jax.random.bernoulli(key, 1 - DROPOUT, x.shape), x / (1 - DROPOUT), 0.0)

    def norm(x):  # scales of one and shifts of zero, which are not trained
        return jax.nn.standardize(x, epsilon=1e-12)

    def block(p, adapter, x, seen, key):
        keys = jax.random.split(key, 3)
        q, k, v = (layers.dense(p[n], x) for n in "qkv")
        q, v = (y + 2 * ((x @ adapter[n]["down"]) @ adapter[n]["up"]) for n, y in (("q", q), ("v", v)))
        q, k, v = (y.reshape(BATCH, LENGTH, HEADS, -1).swapaxes(1, 2) for y in (q, k, v))
        scores = jnp.where(seen, q @ k.swapaxes(-1, -2) * (WIDTH // HEADS) ** -0.5, -jnp.inf)
        y = (drop(keys[0], jax.nn.softmax(scores)) @ v).swapaxes(1, 2).reshape(x.shape)
        x = norm(x + drop(keys[1], layers.dense(p["out"], y)))
        inner = jax.nn.gelu(layers.dense(p["up"], x), approximate=False)
        return norm(x + drop(keys[2], layers.dense(p["down"], inner)))

    def loss(params, ids, mask, labels, number):
        keys = jax.random.split(jax.random.key(number), LAYERS + 1)
        x = drop(keys[0], norm(frozen["words"][ids] + frozen["positions"][:LENGTH] + frozen["kind"][0]))
        for p, adapter, now in zip(frozen["blocks"], params["adapters"], keys[1:], strict=True):
            x = block(p, adapter, x, mask[:, None, None, :] > 0, now)
        pooled = (x * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        logits = layers.dense(params["head"], pooled / jnp.linalg.norm(pooled, axis=-1, keepdims=True))
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    rate = optax.warmup_cosine_decay_schedule(0.0, RATE, STEPS // 10, STEPS)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=0.01))
    batches = [(*batch, np.uint32(i)) for i, batch in enumerate(_batches())]
    return jax_run(loss, params, optimizer, batches)


TRAINER = Trainer("finetune_lora", _ours, _jax, _torch)
