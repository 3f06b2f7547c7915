/** The distribution of EVA's ranks over the layers. */
import test from "ava";
import { roundHalfToEven, distributeRanks } from "../../src/lora/init/eva-ranks.js";

test("the whole rank goes to the largest shares; layers without any get none", (t) => {
  const layers = ["a", "b", "c"].map((path) => ({ path, inputsOf: path, r: 2 }));
  const ratios = new Map([
    ["a", Float64Array.of(0.5, 0.2, 0.1, 0.05)],
    ["b", Float64Array.of(0.4, 0.3, 0.15, 0.12)],
    ["c", Float64Array.of(0.04, 0.03, 0.02, 0.01)],
  ]);
  t.deepEqual(
    [...distributeRanks(layers, ratios)],
    [
      ["a", 2],
      ["b", 4],
      ["c", 0],
    ],
  );
});

test("the first of several layers with the same inputs gets the most, at any position", (t) => {
  const layers = [
    { path: "k", inputsOf: "q", r: 1 },
    { path: "q", inputsOf: "q", r: 1 },
    { path: "v", inputsOf: "q", r: 1 },
    { path: "o", inputsOf: "o", r: 2 },
  ];
  const ratios = new Map([
    ["q", Float64Array.of(0.5, 0.1)],
    ["o", Float64Array.of(0.3, 0.2)],
  ]);
  t.deepEqual(
    [...distributeRanks(layers, ratios)],
    [
      ["k", 1],
      ["q", 1],
      ["v", 1],
      ["o", 2],
    ],
  );
  const fewer = layers.map((layer) => ({ ...layer, r: layer.path === "o" ? 1 : layer.path === "v" ? 0 : 1 }));
  t.deepEqual(
    [...distributeRanks(fewer, ratios)],
    [
      ["k", 1],
      ["q", 1],
      ["v", 1],
      ["o", 0],
    ],
  );
});

test("halves are rounded to the even number, as in Python", (t) => {
  t.deepEqual([0.5, 1.5, 2.5, 2.6, 3].map(roundHalfToEven), [0, 2, 2, 3, 3]);
});
