# SPDX-License-Identifier: MIT
"""Changes to images, as pure functions: `f(image)`, and random ones `f(key, image)`.

An image is [..., height, width] or, where colours matter, [..., 3, height, width], integers or floats in 0..1; the
dtype stays. The functions work under `jit`, `vmap` and `grad`, on NumPy, CuPy and inside a training step:

    keys = fl.random.split(key, len(images))
    images = fl.vmap(lambda key, image: transforms.random_crop(key, image, 32, padding=4))(keys, images)

A random function makes one choice a call, the same for all leading axes; `vmap` over keys makes one for each image.
Keys live on the device of the images.
"""

from .color import adjust_brightness as adjust_brightness
from .color import adjust_contrast as adjust_contrast
from .color import adjust_hue as adjust_hue
from .color import adjust_saturation as adjust_saturation
from .color import color_jitter as color_jitter
from .color import grayscale as grayscale
from .color import normalize as normalize
from .color import to_float as to_float
from .geometry import center_crop as center_crop
from .geometry import flip_horizontal as flip_horizontal
from .geometry import flip_vertical as flip_vertical
from .geometry import pad as pad
from .geometry import random_crop as random_crop
from .geometry import random_erasing as random_erasing
from .geometry import random_flip_horizontal as random_flip_horizontal
from .geometry import random_flip_vertical as random_flip_vertical
from .mixing import cutmix as cutmix
from .mixing import mixup as mixup
from .mixing import one_hot as one_hot
from .resampling import crop_and_resize as crop_and_resize
from .resampling import random_resized_crop as random_resized_crop
from .resampling import resize as resize
