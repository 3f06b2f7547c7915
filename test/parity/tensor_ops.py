"""Goldens of tensor operations, in float64: outputs, and the gradients of the float inputs (README.md)."""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

import fill

GOLDENS = Path(__file__).resolve().parent / "goldens"
INF, NAN = float("inf"), float("nan")


def floats(*shape, levels=None, center=0.0):
    """Uniform on center ± 2; rounded to quarters with `levels`, so that there are ties and zeros."""
    return {"kind": "ties" if levels else "floats", "shape": shape, "center": center}


def ties(*shape):
    return floats(*shape, levels=4)


def whole(*shape, below=7, start=0):
    return {"kind": "whole", "shape": shape, "below": below, "start": start}


def given(values, dtype=torch.float64):
    return {"kind": "given", "values": torch.tensor(values, dtype=dtype)}


SPECIAL = [[1.0, NAN, -INF, 0.0, -0.0], [NAN, INF, -1.0, INF, 2.0], [3.0, 3.0, -2.0, 1.0, 3.0]]


def pairs(sorted_):
    return [sorted_.values, sorted_.indices]


def cases():
    """name: inputs, method of x (or function), its arguments ("$y" for input y), and the same in torch."""
    x = {"x": floats(3, 4, 5)}
    yield "sum_all", x, "sum", [], lambda x: x.sum()
    for dims in ([0], [0, 1], [0, 2], [-1, 1], [0, 1, 2], 1, -1):
        key = "_".join(map(str, dims)) if isinstance(dims, list) else f"n{dims}"
        for keep in (False, True):
            options = [{"keepDim": True}] if keep else []
            end = f"{key}{'_keep' if keep else ''}"
            yield f"sum_{end}", x, "sum", [dims, *options], lambda x: x.sum(dims, keepdim=keep)
            yield f"mean_{end}", x, "mean", [dims, *options], lambda x: x.mean(dims, keepdim=keep)
            yield f"var_{end}", x, "var", [dims, *options], lambda x: x.var(dims, keepdim=keep)
            yield f"std_{end}", x, "std", [dims, {"correction": 0, "keepDim": keep}], lambda x: x.std(dims, correction=0, keepdim=keep)
            yield f"norm_{end}", x, "norm", [dims, *options], lambda x: torch.linalg.vector_norm(x, 2, dims, keepdim=keep)
            for name in ("max", "min"):
                def extreme(x):
                    if isinstance(dims, int):
                        return getattr(x, name)(dims, keepdim=keep).values
                    return getattr(torch, f"a{name}")(x, dims, keepdim=keep)
                yield f"{name}_{end}", {"x": ties(3, 4, 5)}, name, [dims, *options], extreme
                yield f"{name}_i32_{end}", {"x": whole(3, 4, 5, start=-3)}, name, [dims, *options], extreme
            yield f"any_{end}", {"x": whole(3, 4, 5, below=2)}, "any", [dims, *options], lambda x: reduced(x, dims, keep, torch.any)
            yield f"all_{end}", {"x": ties(3, 4, 5)}, "all", [dims, *options], lambda x: reduced(x, dims, keep, torch.all)
            yield f"sum_i32_{end}", {"x": whole(3, 4, 5)}, "sum", [dims, *options], lambda x: x.sum(dims, keepdim=keep)
            yield f"mean_i32_{end}", {"x": whole(3, 4, 5)}, "mean", [dims, *options], lambda x: x.double().mean(dims, keepdim=keep)
    for name in ("max", "min"):
        yield f"{name}_all", {"x": ties(3, 4, 5)}, name, [], lambda x: getattr(x, name)()
        yield f"{name}_line", {"x": ties(9)}, name, [0], lambda x: getattr(x, name)(0).values
        yield f"arg{name}", {"x": ties(3, 4, 5)}, f"arg{name}", [1], lambda x: getattr(x.clone(), f"arg{name}")(1)
        yield f"arg{name}_all", {"x": floats(3, 4, 5)}, f"arg{name}", [], lambda x: getattr(x, f"arg{name}")()
        yield f"arg{name}_keep", {"x": floats(3, 4)}, f"arg{name}", [-1, {"keepDim": True}], lambda x: getattr(x, f"arg{name}")(-1, keepdim=True)
        yield f"{name}_special", {"x": given(SPECIAL)}, name, [1], lambda x: getattr(x, name)(1).values
        yield f"arg{name}_special", {"x": given(SPECIAL)}, f"arg{name}", [1], lambda x: getattr(x, f"arg{name}")(1)
    yield "var_one", {"x": floats(3, 1)}, "var", [1], lambda x: x.var(1)
    yield "std_flat", {"x": given([[2.0, 2.0, 2.0], [1.0, 2.0, 4.0]])}, "std", [1], lambda x: x.std(1)
    yield "var_scalar", {"x": given(3.0)}, "var", [0, {"correction": 0}], lambda x: x.var(0, correction=0)
    for p in (0, 0.5, 1, 1.5, 3, INF, -INF):
        shown = {"p": p if abs(p) != INF else ("inf" if p > 0 else "-inf")}
        yield f"norm_p{p}", {"x": ties(4, 6)}, "norm", [1, shown], lambda x: counted(x) if p == 0 else torch.linalg.vector_norm(x, p, 1)
    yield "norm_zero", {"x": given([[0.0, 0.0], [3.0, 4.0]])}, "norm", [1], lambda x: torch.linalg.vector_norm(x, 2, 1)
    yield "any_special", {"x": given([[0.0, NAN], [0.0, -0.0], [1.0, 0.0]])}, "any", [1], lambda x: (x != 0).any(1)
    yield "all_none", {"x": floats(2, 0)}, "all", [1], lambda x: (x != 0).all(1)
    yield "sum_none", {"x": floats(2, 0)}, "sum", [1], lambda x: x.sum(1)

    # Elementwise.
    ab = {"x": ties(3, 4), "y": ties(4)}
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        yield name, ab, name, ["$y"], lambda x, y: getattr(x, name)(y)
        yield f"{name}_number", {"x": ties(3, 4)}, name, [0.25], lambda x: getattr(x, name)(0.25)
        yield f"{name}_i32", {"x": whole(3, 4), "y": whole(3, 1)}, name, ["$y"], lambda x, y: getattr(x, name)(y)
        yield f"{name}_special", {"x": given(SPECIAL), "y": given([NAN, INF, -INF, 0.0, 2.0])}, name, ["$y"], lambda x, y: getattr(x, name)(y)
    for name in ("sin", "cos"):
        yield name, x, name, [], lambda x: getattr(torch, name)(x)
        yield f"{name}_large", {"x": given([float(np.float32(v)) for v in (1e6, -3e7, 1.5e12, 6.6e20, 3e38)])}, name, [], lambda x: getattr(torch, name)(x)
    yield "rsqrt", {"x": floats(3, 4, center=2.5)}, "rsqrt", [], lambda x: x.rsqrt()
    yield "isFinite", {"x": given(SPECIAL)}, "isFinite", [], lambda x: torch.isfinite(x)

    # Layout.
    yield "expand", {"x": floats(2, 1, 3)}, "expand", [4, 2, 5, -1], lambda x: x.expand(4, 2, 5, -1).clone()
    yield "expand_i32", {"x": whole(3, 1)}, "expand", [[3, 2]], lambda x: x.expand(3, 2).clone()
    yield "repeat", {"x": floats(2, 3)}, "repeat", [2, 3, 2], lambda x: x.repeat(2, 3, 2)
    yield "repeat_four", {"x": floats(2, 2, 3, 2)}, "repeat", [2, 3, 2, 2], lambda x: x.repeat(2, 3, 2, 2)
    yield "repeat_none", {"x": floats(2, 3)}, "repeat", [0, 2], lambda x: x.repeat(0, 2)
    yield "split", {"x": floats(5, 3)}, "split", [2], lambda x: x.split(2)
    yield "split_sizes", {"x": floats(2, 7)}, "split", [[3, 0, 4], 1], lambda x: x.split([3, 0, 4], 1)
    yield "chunk", {"x": floats(2, 7)}, "chunk", [3, -1], lambda x: x.chunk(3, -1)
    yield "chunk_few", {"x": floats(5)}, "chunk", [4], lambda x: x.chunk(4)
    yield "flip", {"x": floats(2, 3, 4)}, "flip", [0, 2], lambda x: x.flip(0, 2)
    yield "flip_i32", {"x": whole(5)}, "flip", [0], lambda x: x.flip(0)
    yield "pad", {"x": floats(2, 3)}, "pad", [[1, 2, 0, 1]], lambda x: F.pad(x, (1, 2, 0, 1))
    yield "pad_value", {"x": floats(2, 3)}, "pad", [[-1, 2], {"value": 1.5}], lambda x: F.pad(x, (-1, 2), value=1.5)
    for mode in ("reflect", "replicate", "circular"):
        yield f"pad_{mode}", {"x": floats(2, 3, 4)}, "pad", [[1, 2], {"mode": mode}], lambda x: F.pad(x, (1, 2), mode=mode)

    # Products.
    vector, line = floats(5), {"x": floats(5), "y": floats(5)}
    yield "matmul_dot", line, "matmul", ["$y"], lambda x, y: x @ y
    yield "matmul_dot_both_ways", line, "matmul", ["$y", {"transA": True, "transB": True}], lambda x, y: x @ y
    for shape in ((5, 3), (1, 5, 3), (2, 4, 5, 3)):
        yield f"matmul_row_{len(shape)}", {"x": vector, "y": floats(*shape)}, "matmul", ["$y"], lambda x, y: x @ y
    for shape in ((3, 5), (1, 3, 5), (2, 4, 3, 5)):
        yield f"matmul_column_{len(shape)}", {"x": floats(*shape), "y": vector}, "matmul", ["$y"], lambda x, y: x @ y
        yield f"matmul_row_{len(shape)}_trans", {"x": vector, "y": floats(*shape)}, "matmul", ["$y", {"transB": True}], lambda x, y: x @ y.mT
    yield "matmul_column_trans", {"x": floats(2, 5, 3), "y": vector}, "matmul", ["$y", {"transA": True}], lambda x, y: x.mT @ y
    yield "matmul_one", {"x": floats(1), "y": floats(1)}, "matmul", ["$y"], lambda x, y: x @ y
    yield "matmul_dot_none", {"x": floats(0), "y": floats(0)}, "matmul", ["$y"], lambda x, y: x @ y
    yield "matmul_column_none", {"x": floats(3, 0), "y": floats(0)}, "matmul", ["$y"], lambda x, y: x @ y

    # Indices.
    index = given([2, 0, 3, 3], torch.int64)
    for dim in (0, 1, 2):
        yield f"indexSelect_{dim}", {"x": floats(4, 4, 5), "i": index}, "indexSelect", [dim, "$i"], lambda x, i: x.index_select(dim, i)
    yield "indexSelect_i32", {"x": whole(3, 4), "i": index}, "indexSelect", [1, "$i"], lambda x, i: x.index_select(1, i)
    scattered = {"x": floats(3, 4), "i": whole(2, 6, below=4), "s": floats(2, 6)}
    yield "scatterAdd", scattered, "scatterAdd", [1, "$i", "$s"], lambda x, i, s: x.scatter_add(1, i, s)
    yield "gather_i32", {"x": whole(3, 4), "i": whole(2, 6, below=4)}, "gather", [1, "$i"], lambda x, i: x.gather(1, i)
    yield "oneHot", {"x": whole(3, 4)}, "oneHot", [7], lambda x: F.one_hot(x, 7)
    for name in ("tril", "triu"):
        for diagonal in (0, 1, -2):
            yield f"{name}_{diagonal}", {"x": floats(2, 4, 6)}, name, [diagonal], lambda x: getattr(x, name)(diagonal)
        yield f"{name}_special", {"x": given(SPECIAL)}, name, [], lambda x: getattr(x, name)()

    # Order.
    for name, inputs in (("floats", floats(3, 33, 2)), ("ties", ties(3, 33, 2)), ("i32", whole(3, 33, 2)), ("special", given(SPECIAL))):
        for descending in (False, True):
            end = f"{name}{'_descending' if descending else ''}"
            yield f"sort_{end}", {"x": inputs}, "sort", [1, {"descending": descending}], lambda x: pairs(x.sort(dim=1, descending=descending, stable=True))
    yield "topk", {"x": floats(4, 33)}, "topk", [5], lambda x: pairs(x.topk(5))
    yield "topk_smallest", {"x": floats(33, 4)}, "topk", [3, 0, {"largest": False}], lambda x: pairs(x.topk(3, 0, largest=False))
    for dim in (0, 1, 2):
        yield f"cumsum_{dim}", x, "cumsum", [dim], lambda x: x.cumsum(dim)

    # Products.
    two = {"x": floats(2, 3, 4), "y": floats(2, 4, 5)}
    for key, spec, inputs in (
        ("batched", "bij,bjk->bik", two),
        ("implicit", "bij,bjk", two),
        ("ellipsis", "...ij,...jk->...ki", {"x": floats(2, 1, 3, 4), "y": floats(5, 4, 2)}),
        ("outer", "i,j->ji", {"x": floats(3), "y": floats(4)}),
        ("inner", "i,i", {"x": floats(5), "y": floats(5)}),
        ("trace", "ii", {"x": floats(4, 4)}),
        ("diagonal", "bii->ib", {"x": floats(2, 4, 4)}),
        ("transposed", "ba", {"x": floats(3, 4)}),
        ("three", "bi,ij,bj->b", {"x": floats(3, 4), "y": floats(4, 5), "z": floats(3, 5)}),
        ("kept", "bhid,bhjd->bhij", {"x": floats(2, 3, 4, 5), "y": floats(2, 3, 6, 5)}),
        ("alone", "ij,k->i", {"x": floats(3, 4), "y": floats(5)}),
        ("hadamard", "ij,ij->ij", {"x": floats(3, 4), "y": floats(3, 4)}),
        ("broadcast", "ij,jk->ik", {"x": floats(3, 1), "y": floats(4, 5)}),
    ):
        yield f"einsum_{key}", inputs, "einsum", [spec, *[f"${k}" for k in inputs]], lambda *t: torch.einsum(spec, *t)

    # Unary functions: near 0, far from it, at ties, and for NaN and infinities.
    near = given([float(np.float32(v)) for v in (1e-20, -3e-12, 2e-7, -4e-5, 3e-3, -0.02, 0.2)])
    far = given([-80.0, -20.5, -5.0, 5.0, 16.5, 21.0, 80.0])
    ends = {"x": given([float(np.float32(v)) for v in (-0.999, -0.75, -0.31, -0.29, 0.41, 0.43, 7.0, 3e8)])}
    for name, run in (("erf", torch.erf), ("expm1", torch.expm1), ("softplus", F.softplus), ("logSigmoid", F.logsigmoid)):
        yield name, {"x": floats(3, 4, 5)}, name, [], run
        yield f"{name}_near", {"x": near}, name, [], run
        yield f"{name}_far", {"x": far}, name, [], run
        yield f"{name}_special", {"x": given(SPECIAL)}, name, [], run
    yield "log1p", {"x": floats(3, 4, 5, center=1.5)}, "log1p", [], torch.log1p
    yield "log1p_near", {"x": near}, "log1p", [], torch.log1p
    yield "log1p_ends", ends, "log1p", [], torch.log1p
    yield "log1p_special", {"x": given([[NAN, INF, -1.0, -1.5, -INF, 0.0, -0.0]])}, "log1p", [], torch.log1p
    for beta, threshold in ((2.0, 20), (0.5, 1.0), (1.0, -0.5)):
        options = {"beta": beta, "threshold": threshold}
        yield f"softplus_{beta}_{threshold}", {"x": floats(4, 5)}, "softplus", [options], lambda x: F.softplus(x, beta, threshold)
    halves = given([[-2.5, -1.5, -0.5, -0.0, 0.0, 0.5, 1.5, 2.5], [-1.0, 1e9, -1e9, 8388609.0, 0.49999997, -0.75, 1.25, 3.0]])
    for name in ("round", "floor", "ceil", "trunc", "sign"):
        yield name, {"x": halves}, name, [], getattr(torch, name)
        yield f"{name}_special", {"x": given(SPECIAL)}, name, [], getattr(torch, name)

    # Products along dimensions, and sums of exponentials.
    for dims in (None, 0, 1, -1, [0, 2], [1, 2], [0, 1, 2]):
        key = "all" if dims is None else "_".join(map(str, dims)) if isinstance(dims, list) else f"n{dims}"
        args = [] if dims is None else [dims]
        for keep in (False, True) if dims is not None else (False,):
            options = [{"keepDim": True}] if keep else []
            end = f"{key}{'_keep' if keep else ''}"
            for kind, values in (("", floats(3, 4, 5, center=2.5)), ("zeros_", ties(3, 4, 5))):
                yield f"prod_{kind}{end}", {"x": values}, "prod", [*args, *options], lambda x: product(x, dims, keep)
            over = [0, 1, 2] if dims is None else dims
            yield f"logsumexp_{end}", {"x": ties(3, 4, 5)}, "logsumexp", [*args, *options], lambda x: x.logsumexp(over, keepdim=keep)
            yield f"logsumexp_i32_{end}", {"x": whole(3, 4, 5)}, "logsumexp", [*args, *options], lambda x: x.double().logsumexp(over, keepdim=keep)
    for count in (0, 1, 2, 3):
        lines = torch.from_numpy(fill.uniform(f"prod_{count}", (2, 7), 1.0, 1.5))
        lines[1, [1, 4, 5][:count]] = 0
        yield f"prod_of_{count}_zeros", {"x": given(lines.tolist())}, "prod", [1], lambda x: x.prod(1)
        yield f"cumprod_of_{count}_zeros", {"x": given(lines.tolist())}, "cumprod", [1], lambda x: x.cumprod(1)
    yield "prod_none", {"x": floats(2, 0)}, "prod", [1], lambda x: x.prod(1)
    yield "prod_scalar", {"x": given(3.0)}, "prod", [], lambda x: x.prod()
    yield "prod_special", {"x": given(SPECIAL)}, "prod", [1], lambda x: x.prod(1)
    yield "prod_long", {"x": given(long_line(5000))}, "prod", [], lambda x: x.prod()
    yield "prod_long_zero", {"x": given([*long_line(4999), 0.0])}, "prod", [0], lambda x: x.prod(0)
    for dim in (0, 1, 2):
        yield f"cumprod_{dim}", {"x": floats(3, 4, 5, center=2.5)}, "cumprod", [dim], lambda x: x.cumprod(dim)
        yield f"cumprod_ties_{dim}", {"x": ties(3, 4, 5)}, "cumprod", [dim], lambda x: x.cumprod(dim)
    yield "cumprod_special", {"x": given(SPECIAL)}, "cumprod", [1], lambda x: x.cumprod(1)
    yield "logsumexp_large", {"x": given([[1e4, 1e4 + 1, -1e4], [-1e4, -1e4, -1e4 - 1]])}, "logsumexp", [1], lambda x: x.logsumexp(1)
    yield "logsumexp_special", {"x": given([[INF, 1.0], [-INF, -INF], [-INF, 2.0], [NAN, 1.0], [INF, -INF]])}, "logsumexp", [1], lambda x: x.logsumexp(1)

    # Cross-entropy with class weights.
    for shape in ((7, 5), (2, 3, 65)):
        classes = shape[-1]
        targets = torch.from_numpy(fill.integers(f"targets {shape}", shape[:-1], classes)).long()
        targets.view(-1)[1::3] = -100
        inputs = {"x": floats(*shape), "t": given(targets.tolist(), torch.int64), "w": weights(classes)}
        for smoothing in (0.0, 0.1, 1.0):
            for reduction in ("mean", "sum", "none"):
                options = {"weight": "$w", "labelSmoothing": smoothing, "reduction": reduction}
                yield f"crossEntropy_{len(shape)}_{smoothing}_{reduction}", inputs, "crossEntropy", ["$t", options], lambda x, t, w: entropy(x, t, w, -100, smoothing, reduction)
    ignored = {"x": floats(4, 3), "t": given([1, 1, 0, 2], torch.int64), "w": weights(3)}
    yield "crossEntropy_ignored", ignored, "crossEntropy", ["$t", {"weight": "$w", "ignoreIndex": 1}], lambda x, t, w: entropy(x, t, w, 1, 0.0, "mean")
    none = {"x": floats(2, 3), "t": given([-100, -100], torch.int64), "w": weights(3)}
    yield "crossEntropy_none", none, "crossEntropy", ["$t", {"weight": "$w"}], lambda x, t, w: entropy(x, t, w, -100, 0.0, "mean")


def product(x, dims, keep):
    if dims is None:
        return x.prod()
    for d in sorted([dims] if isinstance(dims, int) else dims, reverse=True):
        x = x.prod(d, keepdim=keep)
    return x


def long_line(n):
    """Factors around 1, which round in either direction."""
    return fill.uniform(f"line {n}", (n,), 0.02, 1.0).tolist()


def weights(classes):
    """Class weights, one of them 0; they are constants, so that no gradient is requested."""
    values = torch.from_numpy(fill.uniform(f"weights {classes}", (classes,), 0.9, 1.0))
    values[1] = 0
    return {"kind": "constant", "values": values}


def entropy(x, t, w, ignore, smoothing, reduction):
    """Cross-entropy with classes in the last dimension."""
    return F.cross_entropy(x.movedim(-1, 1), t, weight=w, ignore_index=ignore, label_smoothing=smoothing, reduction=reduction)


def reduced(x, dims, keep, f):
    x = x != 0
    for d in sorted([dims] if isinstance(dims, int) else [d % x.ndim for d in dims], reverse=True):
        x = f(x, d, keepdim=keep)
    return x


def counted(x):
    """Norm 0, which has no gradient in lowrank and zeros in PyTorch."""
    return torch.linalg.vector_norm(x.detach(), 0, 1)


def made(name, spec):
    if spec["kind"] in ("given", "constant"):
        return spec["values"].clone()
    shape = spec["shape"]
    if spec["kind"] == "whole":
        return torch.from_numpy(fill.integers(name, shape, spec["below"])).long() + spec["start"]
    values = torch.from_numpy(fill.uniform(name, shape, 2.0, spec["center"]))
    return (values * 4).round() / 4 if spec["kind"] == "ties" else values


def stored(tensor):
    dtype = np.float32 if tensor.is_floating_point() else np.int32
    return tensor.detach().numpy().astype(dtype, order="C")


def main():
    arrays, listed = {}, {}
    for name, inputs, method, args, run in cases():
        tensors = {k: made(f"{name}.{k}", spec) for k, spec in inputs.items()}
        for key, one in tensors.items():
            arrays[f"{name}.{key}"] = stored(one)
            if one.is_floating_point() and inputs[key]["kind"] != "constant":
                one.requires_grad_()
        outputs = run(*tensors.values())
        outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
        loss = torch.zeros((), dtype=torch.float64)
        for i, y in enumerate(outputs):
            arrays[f"{name}.out{i}"] = stored(y)
            if y.is_floating_point() and y.requires_grad:
                d = torch.from_numpy(fill.uniform(f"{name}.d{i}", y.shape, 1.0))
                arrays[f"{name}.d{i}"] = stored(d)
                loss = loss + (y * d).sum()
        # NaN and infinities have no gradient to compare, since inf · 0 is NaN.
        finite = all(bool(torch.isfinite(y).all()) for y in outputs) and all(bool(torch.isfinite(t).all()) for t in tensors.values())
        if loss.requires_grad and finite:
            loss.backward()
            for key, one in tensors.items():
                if one.grad is not None:
                    arrays[f"{name}.grad.{key}"] = stored(one.grad)
        listed[name] = {"method": method, "args": args, "inputs": list(inputs), "outputs": len(outputs)}
    save_file(dict(sorted(arrays.items())), GOLDENS / "tensor_ops.safetensors")
    text = json.dumps({"torch": torch.__version__, "cases": listed}, indent=1)
    (GOLDENS / "tensor_ops.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
