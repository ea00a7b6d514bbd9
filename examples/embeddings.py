# SPDX-License-Identifier: MIT
"""Search Shakespeare by meaning: load a pretrained sentence encoder and find the lines nearest to a question.

    python examples/embeddings.py                                   # a few questions to Hamlet
    python examples/embeddings.py "jealousy of a husband" --work "OTHELLO, THE MOOR OF VENICE"
    python examples/embeddings.py "how does it end" --text FILE     # any other text

MiniLM, a transformer of 22.7 million parameters, turns each passage of four lines, and each question, into a vector of
length 1; the products of vectors are cosines, so one matrix product ranks all passages. It prints the three nearest
passages with their cosines. The weights, 91 MB, and the text, 5 MB, are fetched once.

References
  model       N. Reimers, I. Gurevych, "Sentence-BERT", arXiv:1908.10084; W. Wang and others, "MiniLM", arXiv:2002.10957
"""

import argparse
import time
from pathlib import Path

import numpy as np

import functorch_lite as fl
from functorch_lite import data, models

QUESTIONS = ("Is it better to go on living or to die?", "advice of a father to his son", "a ghost appears at night")
PASSAGE = 4  # lines


def excerpt(lines, first, n):
    """The `n` lines from the one that is `first`."""
    if first not in lines:
        raise SystemExit(f"no line of the text is {first!r}")
    start = lines.index(first)
    return lines[start : start + n]


def passages(lines):
    """Each `PASSAGE` of the `lines` that are not empty, as one line."""
    filled = [line.strip() for line in lines if line.strip()]
    return [" ".join(filled[i : i + PASSAGE]) for i in range(0, len(filled), PASSAGE)]


def nearest(question, vectors, encode, n=3):
    """The n passages with the largest cosines, as pairs (cosine, index)."""
    cosines = vectors @ encode([question])[0]
    return [(float(cosines[i]), int(i)) for i in np.argsort(-cosines)[:n]]


def arguments(argv):
    parser = argparse.ArgumentParser(description="Search a text by meaning.")
    parser.add_argument("questions", nargs="*", default=QUESTIONS)
    parser.add_argument("--work", default="HAMLET, PRINCE OF DENMARK", help="the line that the excerpt begins with")
    parser.add_argument("--lines", type=int, default=5000, help="how many lines to search, empty ones included")
    parser.add_argument("--text", type=Path, help="a text file to search instead")
    parser.add_argument("--bert", type=Path, help="folder of another BERT, in Hugging Face's layout with a vocab.txt")
    parser.add_argument("--device", default="cpu", help="cpu, or gpu (needs CuPy)")
    return parser.parse_args(argv)


def main(argv=None):
    args = arguments(argv)
    model, tokenizer = models.load_bert(args.bert) if args.bert else models.minilm()
    model = fl.tree.map(lambda leaf: fl.numpy.asarray(leaf, device=args.device), model)
    lines = data.read_lines(args.text) if args.text else excerpt(data.shakespeare().split("\n"), args.work, args.lines)
    texts = passages(lines)

    def encode(texts):
        return models.embed(texts, model, tokenizer)

    start = time.perf_counter()
    vectors = encode(texts)
    print(f"{len(texts)} passages in {time.perf_counter() - start:.1f} s")
    for question in args.questions:
        print(f"\n{question}")
        for cosine, i in nearest(question, vectors, encode):
            print(f"  {cosine:.2f}  {texts[i]}")


if __name__ == "__main__":
    main()
