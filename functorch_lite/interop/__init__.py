# SPDX-License-Identifier: MIT
"""Files and arrays of other libraries: safetensors, torch's files, Hugging Face folders, and DLPack.

    tensors = interop.load_torch("resnet.pth")              # without torch, and nothing in the file is run
    config, tensors = interop.load_huggingface(folder)      # config.json and *.safetensors, mapped and not read
    model = nn.load_state_dict(model, tensors)              # names, shapes and dtypes are checked
    interop.save_safetensors("model.safetensors", nn.state_dict(model))
    array = interop.from_torch(tensor)                      # the same memory
"""

from .dlpack import from_jax as from_jax
from .dlpack import from_torch as from_torch
from .dlpack import to_jax as to_jax
from .dlpack import to_torch as to_torch
from .files import FileFormatError as FileFormatError
from .huggingface import Checkpoint as Checkpoint
from .huggingface import load_huggingface as load_huggingface
from .huggingface import save_huggingface as save_huggingface
from .safetensors import load_safetensors as load_safetensors
from .safetensors import safetensors_metadata as safetensors_metadata
from .safetensors import save_safetensors as save_safetensors
from .torch_file import load_torch as load_torch
from .torch_writer import save_torch as save_torch
