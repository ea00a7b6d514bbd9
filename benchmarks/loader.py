# SPDX-License-Identifier: MIT
"""Images a second from memory in one process: our loaders and PyTorch's, on the same arrays, in shuffled batches.

`python -m benchmarks loader`. The arrays have the sizes of Fashion-MNIST: 60,000 images uint8 28x28 and labels.
"""

import importlib.util

import numpy as np

from benchmarks.timing import interleaved
from functorch_lite.data import Dataset, Loader

N_IMAGES = 60_000
BATCH_SIZE = 128
BAR = 200_000  # images a second, the project's own


def arrays():
    """Images uint8 [60000, 28, 28] and labels int64 [60000]."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (N_IMAGES, 28, 28), dtype=np.uint8)
    return images, rng.integers(0, 10, N_IMAGES)


def epoch_of(loader):
    """A function that runs through one epoch of `loader` and returns the number of its batches."""
    return lambda: sum(1 for _ in loader)


def ours():
    """Our loaders, by name."""
    data = arrays()
    dataset = Dataset.from_arrays(data).shuffle(0).batch(BATCH_SIZE)
    per_image = Dataset.from_arrays(data).map(lambda e: (e[0], e[1])).shuffle(0).batch(BATCH_SIZE)
    return {
        "Loader": epoch_of(Loader(data, BATCH_SIZE, seed=0)),
        "Loader, prefetch": epoch_of(Loader(data, BATCH_SIZE, seed=0).prefetch()),
        "Dataset": epoch_of(dataset),
        "Dataset, a map for each image": epoch_of(per_image),
    }


def theirs():
    """PyTorch's, where it is installed: as it is mostly used, and with one indexing for each batch."""
    if importlib.util.find_spec("torch") is None:
        return {}
    import torch
    from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

    torch.set_num_threads(1)  # one process and one thread, as ours
    dataset = TensorDataset(*(torch.from_numpy(part) for part in arrays()))
    batches = BatchSampler(RandomSampler(dataset), BATCH_SIZE, drop_last=True)
    usual = DataLoader(dataset, BATCH_SIZE, shuffle=True, drop_last=True, num_workers=0)
    return {
        "torch DataLoader": epoch_of(usual),
        "torch DataLoader, by batch": epoch_of(DataLoader(dataset, sampler=batches, batch_size=None, num_workers=0)),
    }


def main() -> int:
    """Print a line for each loader; returns 1 when ours is below the bar."""
    seconds = interleaved({**ours(), **theirs()}, rounds=3)
    n = N_IMAGES // BATCH_SIZE * BATCH_SIZE
    for name, value in seconds.items():
        print(f"  {name:<32} {n / value:12,.0f} images/s")
    return int(n / seconds["Loader"] < BAR)


if __name__ == "__main__":
    main()
