# SPDX-License-Identifier: MIT
"""Matrix products: dot_general as kernels made of register tiles.

A product is `Product`: its axes with their strides in both operands and in the output, so an operand that is a
permutation of what lies in memory is read where it is. Axes that go together are one; one axis of rows, one of columns
and the contracted ones make a matrix product (`product_tiles`), the others are loops around it. How it is computed:

    columns   y's columns are in the lanes; y is copied into panels where it is transposed, or large
    inner     both operands are in order along k and there are few rows: k is in the lanes

Half precision is widened to float32 first. The tiles of complex products have real and imaginary parts in vectors of
their own. A complex convolution is a real one over twice the contracted axis: `re = [xr, -xi] . [yr, yi]`,
`im = [xi, xr] . [yr, yi]`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import Buffer, Function, KernelCall
from functorch_lite.compiler.lowering.computed_product import product_matrix
from functorch_lite.compiler.lowering.cutting import AS_USUAL, Cutting
from functorch_lite.compiler.lowering.epilogue import Epilogue
from functorch_lite.compiler.lowering.product_parts import add_up, parts_of
from functorch_lite.compiler.lowering.product_tiles import ONE, Axis, merged, over_axes
from functorch_lite.compiler.lowering.program import Place, ProgramLowering
from functorch_lite.compiler.lowering.prologue import Operand, Prologue, Widened
from functorch_lite.compiler.lowering.rules import is_complex, kind_of, step_rules, strides_of, words
from functorch_lite.compiler.lowering.tiles import Machine
from functorch_lite.compiler.memory.plan import by_input
from functorch_lite.compiler.runtime import engine
from functorch_lite.compiler.schedule.partial import in_parts
from functorch_lite.core.program import Equation
from functorch_lite.primitives.contraction import dot_general_p


class Bilinear(Protocol):
    """A product or convolution, told by its axes."""

    def write(self, b: Builder, x: Operand, y: Operand, out: Buffer, machine: Machine) -> None:
        """Compute it."""
        ...

    def write_with(self, b: Builder, x: Operand, y: Operand, machine: Machine, epilogue: Epilogue) -> None:
        """Compute what an epilogue needs, and have it go over complete values if it `fits`."""
        ...


@dataclass(frozen=True)
class Product:
    """out[b, i, j] = sum over k of x[b, i, k] y[b, k, j], where b, i, j and k stand for any number of axes."""

    batch: tuple[Axis, ...]
    rows: tuple[Axis, ...]
    columns: tuple[Axis, ...]
    contracted: tuple[Axis, ...]

    def swapped(self) -> "Product":
        """The same product with x and y exchanged."""
        def swap(axes):
            return tuple(Axis(a.size, a.y, a.x, a.out) for a in axes)
        return Product(swap(self.batch), swap(self.columns), swap(self.rows), swap(self.contracted))

    def of_parts(self) -> "Product":
        """The same product of complex numbers, its strides those of their parts."""
        def twice(axes):
            return tuple(Axis(a.size, a.x * 2, a.y * 2, a.out * 2) for a in axes)
        return Product(*map(twice, (self.batch, self.rows, self.columns, self.contracted)))

    def write(self, b: Builder, x: Operand, y: Operand, out: Buffer, machine: Machine) -> None:
        """Compute it, on buffers of one kind that is not half precision."""
        _write_product(b, self, x, y, out, machine, None)

    def write_complex(self, b: Builder, x: Buffer, y: Buffer, out: Buffer, machine: Machine) -> None:
        """Compute it, on the parts of complex numbers."""
        _write_product(b, self.of_parts(), x, y, out, machine, None, 2)

    def write_with(self, b: Builder, x: Operand, y: Operand, machine: Machine, epilogue: Epilogue) -> None:
        """Compute it in jobs, each with the epilogue after it."""
        _write_product(b, self, x, y, None, machine, epilogue)


# --- the equation -----------------------------------------------------------------------------------------------------


@step_rules.register(dot_general_p)
def _(program: ProgramLowering, equation: Equation):
    x, y = (program.strided(a) for a in equation.inputs)
    shapes = [a.aval.shape for a in equation.inputs]
    call_kernel(program, equation, (x.place, y.place), product_of(
        shapes[0], x.strides, shapes[1], y.strides, **equation.params))


def call_kernel(
    program: ProgramLowering, equation: Equation, operands: Sequence[Place | Prologue], problem: Bilinear
) -> None:
    """Call the kernel of a product or convolution; equal ones share one kernel."""
    if program.fused is not None:
        _call_fused(program, program.fused, operands, problem)
        return
    target = program.out_place(equation.outputs[0])
    if not target.aval.size:
        return
    if not all(operand.aval.size for operand in operands):
        program.b.fill(target.buffer, words(target.aval), at=target.start)
        return
    places, _ = _sorted(operands)
    sizes = operands[0].aval.size, operands[1].aval.size, target.aval.size
    key = problem, target.aval.dtype, sizes
    kernel = program.kernels.get(key)
    if kernel is None:
        name = f"{equation.prim.name}_{len(program.kernels)}"
        machine = this_machine(program.cutting)
        kernel = program.kernels[key] = bilinear_kernel(name, target.aval.dtype, problem, sizes, machine)
    program.sources.setdefault(kernel.name, []).append(equation)
    scratch = [program.scratch(s) for s in kernel.scratch]
    program.b.add(KernelCall(kernel, [*(p.operand for p in places), target.operand, *scratch]))


def _call_fused(
    program: ProgramLowering, epilogue: Epilogue, operands: Sequence[Place | Prologue], problem: Bilinear
) -> None:
    """Call the kernel of a product with prologues and an epilogue.

    Its parameters: operands in memory, what prologues read, what the epilogue reads, results, working space.
    """
    product: Any = epilogue.product.aval
    sizes = operands[0].aval.size, operands[1].aval.size, product.size
    given, computed = _sorted(operands)
    found = [p.key() for p in computed]
    keys, read = [k for k, _ in found], [a for _, arrays in found for a in arrays]
    known, others = epilogue.key()
    key = None if None in (known, *keys) else (problem, product.dtype, sizes, known, *keys, len(given), *(
        type(p) is Place for p in operands))
    kernel = program.kernels.get(key)
    if kernel is None:
        name = f"{epilogue.equation.prim.name}_{len(program.kernels)}"
        machine = this_machine(epilogue.cutting(program.cutting))
        kernel = bilinear_kernel(name, product.dtype, problem, sizes, machine, epilogue, operands)
        if not epilogue.complete and (epilogue.adds or epilogue.whole_rows):
            kernel = in_parts(kernel)
        program.kernels[key if key is not None else name] = kernel
    program.sources.setdefault(kernel.name, []).extend(epilogue.equations)
    sources = [p.operand for p in (*given, *map(program.place, (*read, *others)))]
    targets = [program.out_place(v).operand for v in epilogue.results]
    program.b.add(KernelCall(kernel, [*sources, *targets, *map(program.scratch, kernel.scratch)]))
    program.share(sources, targets, by_input(epilogue.takeovers(others, len(given) + len(read))))


def _sorted(operands: Sequence[Place | Prologue]) -> tuple[list[Place], list[Prologue]]:
    """Operands in memory, and those that are computed."""
    return [p for p in operands if isinstance(p, Place)], [p for p in operands if isinstance(p, Prologue)]


def this_machine(cutting: Cutting = AS_USUAL) -> Machine:
    """The machine that code is made for."""
    target = engine.vectors()
    return Machine(target.lanes_bytes, 32 if target.lanes_bytes == 64 else 16, cutting)


def product_of(x_shape, x_strides, y_shape, y_strides, *, contract, batch) -> Product:
    """The product that dot_general is, on operands with these shapes and element strides."""
    free_x = [a for a in range(len(x_shape)) if a not in (*contract[0], *batch[0])]
    free_y = [a for a in range(len(y_shape)) if a not in (*contract[1], *batch[1])]
    shape = [*(x_shape[a] for a in (*batch[0], *free_x)), *(y_shape[a] for a in free_y)]
    out = list(strides_of(shape))
    nb, nx = len(batch[0]), len(free_x)
    return Product(
        tuple(Axis(x_shape[i], x_strides[i], y_strides[j], out[k])
              for k, (i, j) in enumerate(zip(*batch, strict=True))),
        tuple(Axis(x_shape[a], x_strides[a], 0, out[nb + k]) for k, a in enumerate(free_x)),
        tuple(Axis(y_shape[a], 0, y_strides[a], out[nb + nx + k]) for k, a in enumerate(free_y)),
        tuple(Axis(x_shape[i], x_strides[i], y_strides[j]) for i, j in zip(*contract, strict=True)),
    )


# --- the kernel -------------------------------------------------------------------------------------------------------


def bilinear_kernel(
    name: str, dtype: Any, problem: Bilinear, sizes: Sequence[int], machine: Machine, epilogue: Epilogue | None = None,
    operands: Sequence[Any] = (None, None),
) -> Function:
    """The kernel (x, y, out, *scratch) of a product or convolution; sizes: the elements of x, y and the output.

    With an epilogue: the kernel (x, y, *what it reads, *what it writes, *scratch). An operand that is a prologue is
    no parameter, but what it reads is, after x and y.
    """
    b = Builder(name)
    kind, parts = kind_of(dtype), 2 if is_complex(dtype) else 1
    assert kind is not None
    sources = [p if isinstance(p, Prologue) else b.input(n, kind, size * parts)
               for p, n, size in zip(operands, "xy", sizes, strict=False)]
    if epilogue is not None:
        for source, n in zip(sources, "uv", strict=True):
            if isinstance(source, Prologue):
                source.begin(b, n)
        epilogue.begin(b)
        problem.write_with(b, _real(b, sources[0]), _real(b, sources[1]), machine, epilogue)
        epilogue.finish()
        return b.finish()
    x, y = (s for s in sources if isinstance(s, Buffer))
    out = b.output("out", kind, sizes[2] * parts)
    if parts == 2 and isinstance(problem, Product):
        problem.write_complex(b, x, y, out, machine)
    elif parts == 2:
        _complex(b, problem, x, y, out, machine)
    elif kind in ("f16", "bf16"):
        total = b.scratch("out_wide", "f32", out.size)
        problem.write(b, Widened(b, x), Widened(b, y), total, machine)
        _convert(b, total, out)
    else:
        problem.write(b, x, y, out, machine)
    return b.finish()


def _real(b: Builder, source: Buffer | Prologue) -> Operand:
    """An operand as numbers that tiles can add up."""
    return Widened(b, source) if isinstance(source, Buffer) and source.kind in ("f16", "bf16") else source


def _convert(b: Builder, source: Buffer, target: Buffer) -> None:
    with b.loop(source.size, vector=True) as i:
        b.store(target, i, b.op("convert", b.load(source, i), kind=target.kind))


def _complex(b: Builder, problem: Any, x: Buffer, y: Buffer, out: Buffer, machine: Machine) -> None:
    nx, ny, n = x.size // 2, y.size // 2, out.size // 2
    parts = b.scratch("x_parts", x.kind, 4 * nx), b.scratch("y_parts", y.kind, 2 * ny)
    total = b.scratch("out_parts", out.kind, 2 * n)
    with b.loop(nx, vector=True) as i:
        real, imag = b.load(x, i * 2), b.load(x, i * 2 + 1)
        for k, value in enumerate((real, b.op("neg", imag), imag, real)):
            b.store(parts[0], i + k * nx, value)
    with b.loop(ny, vector=True) as i:
        b.store(parts[1], i, b.load(y, i * 2))
        b.store(parts[1], i + ny, b.load(y, i * 2 + 1))
    problem.doubled(Axis(2, 2 * nx, 0, n), Axis(2, nx, ny)).write(b, *parts, total, machine)
    with b.loop(n, vector=True) as i:
        b.store(out, i * 2, b.load(total, i))
        b.store(out, i * 2 + 1, b.load(total, i + n))


def _write_product(
    b: Builder, product: Product, x: Operand, y: Operand, out: Buffer | None, machine: Machine,
    epilogue: Epilogue | None, parts: int = 1,
) -> None:
    """Loops around a matrix product whose output is in order along its columns, if it is in order at all."""
    count = _parts_of_k(product, x, y, parts, epilogue)
    if count > 1:
        _write_in_parts(b, product, x, y, epilogue.sums if epilogue is not None else out, machine, count)
        return
    rows, columns = merged(product.rows), merged(product.columns)
    if not columns or (rows and columns[-1].out != parts):
        product, x, y, rows, columns = product.swapped(), y, x, columns, rows
    rows, columns = merged(product.rows), merged(product.columns)
    outer = merged((*product.batch, *rows[:-1], *columns[:-1]))
    matrix = product_matrix(b, machine, x, y, out, (rows or (ONE,))[-1], (columns or (ONE,))[-1],
                            merged(product.contracted) or (ONE,), outer, parts)
    if epilogue is not None:
        matrix.end_with(epilogue, outer)
    over_axes(b, outer, matrix.write)


def _parts_of_k(product: Product, x: Operand, y: Operand, parts: int, epilogue: Epilogue | None) -> int:
    """In how many parts k goes, each with sums of its own; 1: as usual."""
    in_rows = epilogue is not None and (epilogue.adds or epilogue.whole_rows)
    if parts > 1 or in_rows or merged(product.batch) or not (isinstance(x, Buffer) and isinstance(y, Buffer)):
        return 1
    return parts_of(product.rows, product.columns, merged(product.contracted), x.kind)


def _write_in_parts(
    b: Builder, product: Product, x: Operand, y: Operand, out: Buffer | None, machine: Machine, count: int
) -> None:
    """The same as so many products of parts of k, which are then added up."""
    assert out is not None
    first, *others = merged(product.contracted)
    size = first.size // count
    part = Axis(count, first.x * size, first.y * size, out.size)
    sums = b.scratch("k_parts", out.kind, count * out.size)
    _write_product(b, Product((part,), product.rows, product.columns, (first._replace(size=size), *others)), x, y, sums,
                   machine, None)
    add_up(b, sums, count, out)
