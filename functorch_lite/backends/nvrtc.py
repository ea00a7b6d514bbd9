# SPDX-License-Identifier: MIT
"""Compiles CUDA C++ to machine code for one GPU architecture, in memory, with or without a GPU or a driver.

Calls NVIDIA's runtime compiler (NVRTC) through ctypes, because CuPy's own front end appends `-ftz=true` (which flushes
the denormals that NumPy keeps) and asks the driver for the architecture. The result is a CUBIN, not PTX: it needs no
second compilation when it is loaded, and loads on any driver of the same CUDA major version.

Source: NVIDIA, "NVRTC: CUDA Runtime Compilation", section "Basic Usage" and the compile options.
"""

import ctypes
import functools
import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from functorch_lite.errors import ArgumentError, DeviceError

INSTALL_ADVICE = (
    "NVRTC, NVIDIA's runtime compiler, is not installed. Install the wheels of your CUDA version:\n"
    "  CUDA 13:  pip install nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cuda-crt\n"
    "  CUDA 12:  pip install nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12\n"
    "or the extra that brings CuPy too: pip install functorch_lite[cuda13] (or [cuda12])."
)

# Newest first. Below the `nvidia` namespace package, then where CUDA installs itself.
_LIBRARIES = {13: "cu13/lib/libnvrtc.so.13", 12: "cuda_nvrtc/lib/libnvrtc.so.12"}
_INCLUDES = {13: "cu13/include", 12: "cuda_runtime/include"}
_TOOLKIT = Path("/usr/local/cuda")

# ptxas -v prints two lines a kernel.
_RESOURCES = re.compile(
    r"Compiling entry function '(?P<name>[^']+)'.*?(?P<stack>\d+) bytes stack frame, "
    r"(?P<spilled>\d+) bytes spill stores.*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)


class CompileError(RuntimeError):
    """A kernel does not compile: the compiler's log."""


@dataclass(frozen=True)
class Resources:
    """What one kernel takes from the processor that runs it."""

    registers: int  # per thread
    stack_bytes: int  # per thread
    spilled_bytes: int  # stored to memory for want of registers, per thread


@dataclass(frozen=True)
class Cubin:
    """Machine code for one architecture, with what the compiler said about it."""

    code: bytes
    arch: str
    log: str
    resources: dict[str, Resources]  # by kernel name


@dataclass(frozen=True)
class Nvrtc:
    """A loaded compiler."""

    library: ctypes.CDLL
    version: tuple[int, int]
    include: tuple[str, ...]  # folders with CUDA's own headers, for kernels that use half types


def is_available(major: int | None = None) -> bool:
    """Whether NVRTC (of that CUDA major version, or of any) can be loaded here."""
    try:
        load(major)
    except DeviceError:
        return False
    return True


@functools.cache
def load(major: int | None = None) -> Nvrtc:
    """The compiler of CUDA `major` (12 or 13), or the newest there is.

    *Raises* DeviceError, which says what to install, when there is none.
    """
    for version in (v for v in _LIBRARIES if major in (None, v)):
        for path in _candidates(version):
            try:
                library = _open(path)
            except OSError:
                continue
            return Nvrtc(library, _version(library), _include_folders(version))
    raise DeviceError(INSTALL_ADVICE)


def compile_cuda(
    source: str,
    *,
    arch: str,
    name: str = "kernel.cu",
    headers: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
    major: int | None = None,
) -> Cubin:
    """The machine code of `source` for exactly `arch` ("sm_80", "sm_90", "sm_90a", ...).

    `headers` maps the names that the source includes to their texts, so nothing is read from or written to disk.
    Floating point is as written, denormals included, but for the fusing of a product and a sum into one rounding.

    *Raises* CompileError with the compiler's log, DeviceError when NVRTC is missing, ArgumentError for an `arch` that
    is not of the form sm_XX.
    """
    if not re.fullmatch(r"sm_\d+[af]?", arch):
        raise ArgumentError(f"compile_cuda: expected an architecture such as 'sm_90', got {arch!r}.")
    nvrtc = load(major)
    flags = [f"-arch={arch}", "--std=c++17", "--ptxas-options=-v", *options, *(f"-I{d}" for d in nvrtc.include)]
    return _compile(nvrtc.library, source, arch, name, dict(headers or {}), flags)


def _compile(library, source, arch, name, headers, flags):
    program = ctypes.c_void_p()
    texts, names = _c_strings(headers.values()), _c_strings(headers)
    _check(library, library.nvrtcCreateProgram(
        ctypes.byref(program), source.encode(), name.encode(), len(headers), texts, names))
    try:
        status = library.nvrtcCompileProgram(program, len(flags), _c_strings(flags))
        log = _fetch(library, program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
        if status:
            raise CompileError(f"{name} does not compile for {arch}:\n{log}")
        return Cubin(_fetch(library, program, "CUBIN"), arch, log, parse_resources(log))
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def parse_resources(log: str) -> dict[str, Resources]:
    """Registers, stack and spills of every kernel, from the log of `--ptxas-options=-v`."""
    return {
        m["name"]: Resources(int(m["registers"]), int(m["stack"]), int(m["spilled"])) for m in _RESOURCES.finditer(log)
    }


# --- the C interface ---

def _c_strings(texts):
    return (ctypes.c_char_p * len(texts))(*(text.encode() for text in texts))


def _check(library, status):
    if status:
        raise CompileError(f"NVRTC: {library.nvrtcGetErrorString(status).decode()}")


def _fetch(library, program, what):
    """The bytes of a result: nvrtcGet<what>Size, then nvrtcGet<what>."""
    size = ctypes.c_size_t()
    _check(library, getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(library, getattr(library, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


# --- finding it ---

def _nvidia_folders():
    spec = importlib.util.find_spec("nvidia")
    return [Path(p) for p in (spec.submodule_search_locations or ())] if spec else []


def _candidates(major):
    wheels = [p for folder in _nvidia_folders() if (p := folder / _LIBRARIES[major]).exists()]
    soname = f"libnvrtc.so.{major}"
    return [*wheels, _TOOLKIT / "lib64" / soname, soname]


def _include_folders(major):
    wheels = [p for folder in _nvidia_folders() if (p := folder / _INCLUDES[major]).is_dir()]
    # The toolkit's headers may be of another version than the wheel's compiler: a second choice.
    folders = wheels or [p for p in (_TOOLKIT / "include",) if p.is_dir()]
    return tuple(str(p) for p in folders)


def _open(path):
    # NVRTC 13.0 does not find its built-in headers by itself unless they are loaded already.
    for builtins in sorted(Path(path).parent.glob("libnvrtc-builtins.so.*")) if Path(path).is_absolute() else ():
        ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(path))
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


def _version(library):
    major, minor = ctypes.c_int(), ctypes.c_int()
    library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value
