# SPDX-License-Identifier: MIT
"""The CUDA sources compile with NVRTC for real architectures, and take no more of the processor than they should."""

import pytest

from functorch_lite.backends import cuda_kernels, nvrtc
from functorch_lite.errors import ArgumentError, DeviceError

needs_nvrtc = pytest.mark.skipif(not nvrtc.is_available(), reason="NVRTC is not installed")

THREEFRY = {"fl_threefry_bits8", "fl_threefry_bits16", "fl_threefry_bits32", "fl_threefry_bits64", "fl_threefry_words"}


@needs_nvrtc
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_threefry_compiles_without_spills(arch):
    cubin = cuda_kernels.compile_kernels("threefry.cu", arch=arch)
    assert cubin.code[:4] == b"\x7fELF" and cubin.arch == arch
    assert set(cubin.resources) == THREEFRY
    for name, used in cubin.resources.items():
        assert used.spilled_bytes == used.stack_bytes == 0, name
        # 32 registers a thread let a processor of 64 Ki registers hold its 2048 threads.
        assert used.registers <= 32, name


@needs_nvrtc
def test_prelude_gives_half_types_when_asked():
    if not nvrtc.load().include:
        pytest.skip("CUDA's headers are not installed")
    source = '#define FL_WITH_HALF\n#include "prelude.cuh"\nFL_KERNEL(32) k(fl_bf16* x) { x[0] = fl_bf16(1.0f); }\n'
    headers = {"prelude.cuh": cuda_kernels.kernel_source("prelude.cuh")}
    assert "k" in nvrtc.compile_cuda(source, arch="sm_90", headers=headers).resources


@needs_nvrtc
def test_compile_error_carries_the_log_and_the_line():
    with pytest.raises(nvrtc.CompileError, match=r"(?s)broken.cu does not compile for sm_90.*broken.cu\(2\): error"):
        nvrtc.compile_cuda("\nnonsense;\n", arch="sm_90", name="broken.cu")


def test_missing_nvrtc_says_what_to_install(monkeypatch):
    nvrtc.load.cache_clear()
    monkeypatch.setattr(nvrtc, "_candidates", lambda major: ["/nowhere/libnvrtc.so"])
    with pytest.raises(DeviceError, match="pip install nvidia-cuda-nvrtc"):
        nvrtc.load()
    assert not nvrtc.is_available()
    nvrtc.load.cache_clear()


def test_architecture_of_another_form_is_refused():
    with pytest.raises(ArgumentError, match="such as 'sm_90', got 'compute_90'"):
        nvrtc.compile_cuda("", arch="compute_90")


def test_missing_kernel_file_says_where_it_was_looked_for():
    with pytest.raises(ArgumentError, match="no kernel file 'none.cu'"):
        cuda_kernels.kernel_source("none.cu")


def test_resources_are_read_from_the_log():
    log = ("ptxas info    : Compiling entry function 'k' for 'sm_90'\nptxas info    : Function properties for k\n"
           "    16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads\nptxas info    : Used 40 registers")
    assert nvrtc.parse_resources(log) == {"k": nvrtc.Resources(registers=40, stack_bytes=16, spilled_bytes=8)}
