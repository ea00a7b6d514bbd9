# SPDX-License-Identifier: MIT
"""Pretrained models: architectures with their weights, from files that Python packages bring.

    model, tokenizer = models.minilm()
    vectors = models.embed(["A cat sat on the mat.", "The kitten rested."], model, tokenizer)

A model is a plain `nn.Module`, so it can be jitted, fine-tuned (examples/finetune_lora.py) and saved like any other;
`nn.state_dict` gives its arrays under the names of the library that it comes from.
"""

from .bert import Bert as Bert
from .bert import BertConfig as BertConfig
from .bert import embed as embed
from .bert import load_bert as load_bert
from .bert import minilm as minilm
from .efficientnet_lite import EfficientNetLite0 as EfficientNetLite0
from .efficientnet_lite import efficientnet_lite0 as efficientnet_lite0
from .efficientnet_lite import to_imagenet as to_imagenet
from .mtcnn import ONet as ONet
from .mtcnn import PNet as PNet
from .mtcnn import RNet as RNet
from .mtcnn import mtcnn as mtcnn
from .silero_vad import SileroVAD as SileroVAD
from .silero_vad import silero_vad as silero_vad
from .silero_vad import speech_probabilities as speech_probabilities
from .wordpiece import WordPiece as WordPiece
