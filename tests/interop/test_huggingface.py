# SPDX-License-Identifier: MIT
import json

import numpy as np
import pytest

from functorch_lite import interop
from functorch_lite.errors import ArgumentError

CONFIG = {"model_type": "toy", "hidden_size": 3}
TENSORS = {"layer.0.weight": np.ones((4, 3), np.float32), "layer.0.bias": np.arange(4.0), "head": np.zeros(5, np.int8)}


def same(tensors):
    return set(tensors) == set(TENSORS) and all(np.array_equal(tensors[name], x) for name, x in TENSORS.items())


def test_a_folder_comes_back(tmp_path):
    config, tensors = interop.load_huggingface(interop.save_huggingface(tmp_path / "m", CONFIG, TENSORS))
    assert config == CONFIG and same(tensors)
    assert {p.name for p in (tmp_path / "m").iterdir()} == {"config.json", "model.safetensors"}


def test_large_models_come_in_parts_with_an_index(tmp_path):
    interop.save_huggingface(tmp_path, CONFIG, TENSORS, max_part_bytes=60)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {
        "layer.0.weight": "model-00001-of-00002.safetensors",
        "layer.0.bias": "model-00002-of-00002.safetensors",
        "head": "model-00002-of-00002.safetensors",
    }
    assert index["metadata"] == {"total_size": 85}
    config, tensors = interop.load_huggingface(tmp_path)
    assert config == CONFIG and same(tensors) and list(tensors) == list(TENSORS)


def test_torch_files_are_read_where_there_are_no_safetensors(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    interop.save_torch(tmp_path / "pytorch_model.bin", TENSORS)
    assert same(interop.load_huggingface(tmp_path).tensors)


def test_a_folder_without_its_files_is_named(tmp_path):
    with pytest.raises(ArgumentError, match="config.json: there is no such file"):
        interop.load_huggingface(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ArgumentError, match="has none of model.safetensors, pytorch_model.bin"):
        interop.load_huggingface(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(interop.FileFormatError, match="should hold a JSON object, but holds list"):
        interop.load_huggingface(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(interop.FileFormatError, match="config.json: is no JSON"):
        interop.load_huggingface(tmp_path)


@pytest.mark.parametrize(
    "weight_map, message",
    [
        (None, "has no `weight_map`"),
        ({"head": "gone.safetensors"}, "gone.safetensors: is named by .*, but is not there"),
        ({"head": "../secret"}, "names '../secret', which is not a file of the folder"),
        ({"other": "part.safetensors"}, "part.safetensors: should hold `other`"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(tmp_path, weight_map, message):
    (tmp_path / "config.json").write_text("{}")
    interop.save_safetensors(tmp_path / "part.safetensors", TENSORS)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(interop.FileFormatError, match=message):
        interop.load_huggingface(tmp_path)
