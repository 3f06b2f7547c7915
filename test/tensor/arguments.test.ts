/** What a call on tensors is given wrongly is told by method and argument, and has one class. */
import test from "ava";

import {
  arange,
  einsum,
  full,
  LowrankError,
  noGrad,
  ones,
  rand,
  tensor,
  zeros,
  type Tensor,
} from "../../src/index.js";

/** Of any type, as from JavaScript. */
const any = (value: unknown): never => value as never;

test("each wrong argument is refused by name", (t) => {
  const x = tensor(
    [
      [1, 2, 3],
      [4, 5, 6],
    ],
    { device: "cpu" },
  );
  const i = tensor(Int32Array.of(0, 1), { device: "cpu" });
  const loop: unknown[] = [];
  loop.push(loop);
  const cases: [call: () => unknown, code: string, message: RegExp][] = [
    [() => tensor(any([true])), "ERR_OPTION", /^tensor: data\[0\] is a number, not true$/],
    [() => tensor(any([[1], ["x"]])), "ERR_OPTION", /data\[1\]\[0\] is a number, not "x"/],
    [() => tensor(any(null)), "ERR_OPTION", /data is .*, not null/],
    [() => tensor(any(new Uint8Array(2))), "ERR_OPTION", /data is .*, not an Uint8Array/],
    [() => tensor(any(loop)), "ERR_OPTION", /nested at most/],
    [() => tensor([[1, 2], [3]]), "ERR_SHAPE_MISMATCH", /unequal lengths/],
    [() => tensor([1, [2]]), "ERR_SHAPE_MISMATCH", /unequal lengths/],
    [() => tensor([1, 2], { shape: [3] }), "ERR_SHAPE_MISMATCH", /shape \[3\] takes 3 values, 2 were given/],
    [() => tensor([1], { shape: [0.5] }), "ERR_OPTION", /shape\[0\] is a whole number from 0 on, not 0.5/],
    [() => tensor([1], { dtype: any("f64") }), "ERR_OPTION", /dtype is one of f32, f16, bf16, i32, not "f64"/],
    [() => tensor([1], { device: any("tpu") }), "ERR_OPTION", /tpu/],
    [() => tensor([1], { requiresGrad: any(1) }), "ERR_OPTION", /requiresGrad is true or false, not 1/],
    [() => tensor([1], any({ grad: true })), "ERR_OPTION", /there is no option grad/],
    [() => tensor([NaN], { dtype: "i32" }), "ERR_OPTION", /value 0 of data is within the range of i32, not NaN/],
    [() => zeros(any(3)), "ERR_OPTION", /^zeros: shape is an array, not 3$/],
    [() => ones([-1]), "ERR_OPTION", /^ones: shape\[0\]/],
    [() => rand([NaN]), "ERR_OPTION", /^rand: shape\[0\]/],
    [() => full([1], any("1")), "ERR_OPTION", /^full: value/],
    [() => arange(NaN), "ERR_OPTION", /^arange: end is a finite number, not NaN$/],
    [() => arange(3, { step: 0 }), "ERR_OPTION", /^arange: step/],
    [() => arange(1e12), "ERR_OPTION", /^arange: end/],
    [() => ones([1]).add(any("x")), "ERR_OPTION", /^add: other is a tensor or a number, not "x"$/],
    [() => x.le(any(undefined)), "ERR_OPTION", /^le: other is a tensor or a number, not undefined$/],
    [() => x.where(any(1), 0), "ERR_OPTION", /^where: condition is a tensor, not 1$/],
    [() => x.clamp(any(undefined), 1), "ERR_OPTION", /^clamp: low is a number, not undefined$/],
    [() => x.dropout(2), "ERR_OPTION", /^dropout: p is a number from 0 to 1, not 2$/],
    [() => x.gelu({ approximate: any("fast") }), "ERR_OPTION", /^gelu: approximate is one of none, tanh/],
    [() => x.matmul(any([[1]])), "ERR_OPTION", /^matmul: other is a tensor/],
    [() => x.matmul(x, any({ transC: true })), "ERR_OPTION", /^matmul: there is no option transC/],
    [() => x.matmul(x), "ERR_SHAPE_MISMATCH", /^matmul: shapes \[2, 3\] and \[2, 3\] do not fit/],
    [() => x.matmul(x.slice(0, 0, 1).reshape(3).slice(0, 0, 2)), "ERR_SHAPE_MISMATCH", /^matmul: shapes \[2, 3\] and \[2\] do not fit: 3 columns meet 2 rows$/],
    [() => zeros([4]).matmul(x), "ERR_SHAPE_MISMATCH", /^matmul: shapes \[4\] and \[2, 3\] do not fit: 4 columns meet 2 rows$/],
    [() => x.matmul(zeros([])), "ERR_SHAPE_MISMATCH", /^matmul: takes at least one dimension each, got shapes \[2, 3\] and \[\]$/],
    [() => x.sum(any("0")), "ERR_OPTION", /^sum: dim is a whole number, not "0"$/],
    [() => x.sum(2), "ERR_SHAPE_MISMATCH", /^sum: there is no dimension 2/],
    [() => x.mean([0, -2]), "ERR_SHAPE_MISMATCH", /^mean: dimension 0 is named twice/],
    [() => x.max(0, any({ keepdim: true })), "ERR_OPTION", /^max: there is no option keepdim/],
    [() => x.var(0, { correction: any("1") }), "ERR_OPTION", /^var: correction is a number/],
    [() => x.norm(0, { p: NaN }), "ERR_OPTION", /^norm: p is a number, not NaN$/],
    [() => zeros([0, 2]).argmin(0), "ERR_SHAPE_MISMATCH", /^argmin: there is nothing to choose from/],
    [() => x.reshape(NaN), "ERR_OPTION", /^reshape: shape\[0\] is a whole number, or −1, not NaN$/],
    [() => x.reshape(4, -1), "ERR_SHAPE_MISMATCH", /^reshape: \[4, -1\] leaves no size/],
    [() => x.reshape(-1, -1), "ERR_SHAPE_MISMATCH", /^reshape/],
    [() => x.permute(0, 0), "ERR_SHAPE_MISMATCH", /^permute/],
    [() => x.slice(0, any("1")), "ERR_OPTION", /^slice: start is a whole number, not "1"$/],
    [() => x.concat(any(3)), "ERR_OPTION", /^concat: others is a tensor or an array of tensors, not 3$/],
    [() => x.stack([i]), "ERR_SHAPE_MISMATCH", /^stack: shapes \[2, 3\] and \[2\] differ$/],
    [() => x.split(0), "ERR_OPTION", /^split: shape\[0\]/],
    [() => x.split([1, 2]), "ERR_SHAPE_MISMATCH", /^split: sizes \[1, 2\] add up to 3/],
    [() => x.chunk(1.5), "ERR_OPTION", /^chunk: count is a whole number from 1 on, not 1.5$/],
    [() => x.expand(3, 3), "ERR_SHAPE_MISMATCH", /^expand: \[2, 3\] does not broadcast to \[3, 3\]$/],
    [() => x.expand(-1, 2, 3), "ERR_OPTION", /^expand: shape\[0\] is the size of a new dimension/],
    [() => x.repeat(2), "ERR_SHAPE_MISMATCH", /^repeat/],
    [() => x.pad([1]), "ERR_SHAPE_MISMATCH", /^pad: padding holds two sizes a dimension/],
    [() => x.pad([-4, 0]), "ERR_SHAPE_MISMATCH", /^pad: \[-4, 0\] cuts off more than the 3/],
    [() => x.pad([1, 1], { mode: any("zero") }), "ERR_OPTION", /^pad: mode is one of/],
    [() => x.gather(0, any(3)), "ERR_OPTION", /^gather: index is a tensor, not 3$/],
    [() => x.indexSelect(0, tensor(Int32Array.of(2))), "ERR_INDEX", /index 2 at position 0 is outside 0..2/],
    [() => x.indexSelect(0, x), "ERR_SHAPE_MISMATCH", /^indexSelect: the index is \[N\], not \[2, 3\]$/],
    [() => i.oneHot(1), "ERR_INDEX", /^oneHot: index 1 at position 1 is outside 0..1$/],
    [() => i.oneHot(any("3")), "ERR_OPTION", /^oneHot: classes/],
    [() => i.tril(), "ERR_SHAPE_MISMATCH", /^tril: takes two dimensions or more, not \[2\]$/],
    [() => x.triu(0.5), "ERR_OPTION", /^triu: diagonal is a whole number, not 0.5$/],
    [() => x.topk(4), "ERR_SHAPE_MISMATCH", /^topk: dimension 1 of \[2, 3\] has no 4 elements$/],
    [() => x.topk(-1), "ERR_OPTION", /^topk: k/],
    [() => x.sort(0, any({ reverse: true })), "ERR_OPTION", /^sort: there is no option reverse/],
    [() => i.cumsum(0), "ERR_DTYPE", /^cumsum: takes f32, not i32/],
    [() => x.crossEntropy(any([1])), "ERR_OPTION", /^crossEntropy: targets is a tensor/],
    [() => x.crossEntropy(i, { reduction: any("max") }), "ERR_OPTION", /^crossEntropy: reduction/],
    [() => x.to(any("f64")), "ERR_OPTION", /^to: the target is a dtype .* or a device .*, not "f64"$/],
    [() => x.backward(any(1)), "ERR_OPTION", /^backward: gradient is a tensor, not 1$/],
    [() => noGrad(() => x.copy(any(null))), "ERR_OPTION", /^copy: from is a tensor, not null$/],
    [() => einsum("ij,jk", x), "ERR_OPTION", /there are 2 terms for 1 tensors/],
    [() => einsum("i->i", x), "ERR_OPTION", /"i" names 1 of the 2 dimensions/],
    [() => einsum("ij->k", x), "ERR_OPTION", /the result names k, which no term does/],
    [() => einsum("ij,ji->", x, x), "ERR_SHAPE_MISMATCH", /i has sizes 2 and 3|j has sizes 3 and 2/],
    [() => einsum(any(3), x as Tensor), "ERR_OPTION", /^einsum: spec is a text, not 3$/],
  ]; // prettier-ignore
  for (const [call, code, message] of cases) {
    const error = t.throws<LowrankError>(call, { instanceOf: LowrankError, code, message }, String(call));
    t.is(error?.code, code as never, String(call));
  }
});
