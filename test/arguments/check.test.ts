import test from "ava";

import * as argument from "../../src/arguments/check.js";
import { LowrankError } from "../../src/errors.js";

const { refuse, formatValue } = argument;

test("the description of a value is short and runs none of its code", (t) => {
  const hostile = {
    toString(): string {
      throw new Error("run");
    },
  };
  const cases: [unknown, string][] = [
    ["x", '"x"'],
    ["y".repeat(100), JSON.stringify(`${"y".repeat(57)}…`)],
    [3n, "3n"],
    [Symbol("s"), "Symbol(s)"],
    [null, "null"],
    [[1, "a", true], '[1, "a", true]'],
    [[[1]], "an array of 1"],
    [{}, "an object"],
    [hostile, "an object"],
    [Object.create(null), "an object"],
    [new Date(0), "a Date"],
    [new Int32Array(2), "an Int32Array"],
    [() => 1, "a function"],
    [Date, "the class Date"],
    [LowrankError, "the class LowrankError"],
    [LowrankError.prototype, "the prototype of LowrankError"],
  ];
  for (const [value, expected] of cases) t.is(formatValue(value), expected);
});

test("each check accepts valid values, and otherwise names function, argument and value", (t) => {
  const cases: [check: () => unknown, wrong: string | undefined][] = [
    [() => argument.checkNumber("clamp", "low", -Infinity), undefined],
    [() => argument.checkNumber("clamp", "low", NaN), "clamp: low must be a number, got NaN"],
    [() => argument.checkWhole("topk", "k", 0), undefined],
    [() => argument.checkWhole("topk", "k", 0, 1), "topk: k must be a whole number of at least 1, got 0"],
    [() => argument.checkWhole("topk", "k", 1.5), "topk: k must be a whole number of at least 0, got 1.5"],
    [() => argument.checkWhole("topk", "k", 2 ** 60), `topk: k must be a whole number of at least 0, got ${2 ** 60}`],
    [() => argument.checkProbability("dropout", "p", 1), undefined],
    [() => argument.checkProbability("dropout", "p", 1.1), "dropout: p must be a number from 0 to 1, got 1.1"],
    [() => argument.checkFlag("sum", "keepDim", "no"), 'sum: keepDim must be true or false, got "no"'],
    [() => argument.checkText("load", "path", 3), "load: path must be a string, got 3"],
    [() => argument.checkChoice("loss", "reduction", "mean", ["mean", "sum"]), undefined],
    [() => argument.checkChoice("loss", "reduction", "max", ["mean", "sum"]), 'loss: reduction must be one of mean, sum, got "max"'],
    [() => argument.checkCallable("scope", "fn", {} as () => 0), "scope: fn must be a function, got an object"],
    [() => argument.checkCallable("scope", "fn", () => 0), undefined],
    [() => argument.checkCallable("scope", "fn", function plain() {}), undefined],
    [() => argument.checkCallable("scope", "fn", Map), "scope: fn must be a function, got the class Map"],
    [() => argument.checkList("zeros", "shape", [2, 3], argument.checkWhole), undefined],
    [() => argument.checkList("zeros", "shape", [2, -3], argument.checkWhole), "zeros: shape[1] must be a whole number of at least 0, got -3"],
    [() => argument.checkList("zeros", "shape", 2, argument.checkWhole), "zeros: shape must be an array, got 2"],
    [() => argument.checkKnownOptions("sum", undefined, []), undefined],
    [() => argument.checkKnownOptions("sum", { keepDim: true }, ["keepDim"]), undefined],
    [() => argument.checkKnownOptions("sum", { keep: true }, ["keepDim" as "keep"]), "sum: there is no option keep; there are keepDim"],
    [() => argument.checkKnownOptions("sum", null as unknown as object, []), "sum: the last argument must be an object of options, got null"],
    [() => argument.checkKnownOptions("sum", Object.create(null) as object, []), undefined],
    [() => argument.checkKnownOptions("sum", new Date(0), []), "sum: the last argument must be an object of options, got a Date"],
    [() => refuse("f", "x", "a letter", 1), "f: x must be a letter, got 1"],
  ]; // prettier-ignore
  for (const [check, wrong] of cases) {
    if (wrong === undefined) t.notThrows(check);
    else {
      const error = t.throws<LowrankError>(check, { message: wrong });
      t.is(error?.code, "ERR_OPTION");
    }
  }
});
