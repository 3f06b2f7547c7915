/** The reports of the tests on other drivers. */
import { createHash } from "node:crypto";

import test from "ava";

import { forGlslang } from "../../scripts/drivers/compilers.mjs";
import { parse, times } from "../../scripts/drivers/dx12/compile.mjs";
import { grouped } from "../../scripts/drivers/dx12/modules.mjs";
import { check } from "../../scripts/drivers/swiftshader.mjs";
import { type Row, failed, table } from "../../scripts/drivers/table.mjs";
import { KNOWN, findings } from "../../scripts/drivers/validation.mjs";

const WELL: Row = { part: "tint", by: "Tint", seen: "7 of 7 forms", seconds: 3.4, wrong: [] };

test("a part with an error is marked, and its errors are listed below", (t) => {
  const wrong = Array.from({ length: 10 }, (_, i) => `form ${i}:\n  no`);
  const bad: Row = { part: "spirv", by: "", seen: "", seconds: 0, wrong };
  t.deepEqual([failed(WELL), failed(bad)], [false, true]);
  const lines = table([WELL, bad]).split("\n");
  t.is(lines[2], "| tint | Tint | 7 of 7 forms | 3 |");
  t.is(lines[3], "| spirv | – | **wrong**: nothing | 0 |");
  t.is(lines[5], "- spirv: form 0: no");
  t.is(lines.at(-1), "- spirv: and 2 more");
  t.is(lines.length, 5 + 8 + 1);
  t.false(table([WELL]).includes("\n\n"));
});

test("findings of the validation layer are counted by name, with known ones separate", (t) => {
  const [known] = KNOWN;
  const wrote = [
    "Validation Information: [ WARNING-CreateInstance-status-message ] | MessageID = 0x1",
    `Validation Error: [ ${known} ] | MessageID = 0x2`,
    `Validation Error: [ ${known} ] | MessageID = 0x2`,
    "Validation Error: [ VUID-vkCmdDispatch-None-08114 ] | MessageID = 0x3",
    "Validation Warning: [ WARNING-Shader-OutputNotConsumed ] | MessageID = 0x4",
    "Validation Error: a sentence without a name",
  ].join("\n");
  const found = findings(wrote);
  t.deepEqual([...found.known], [[known, 2]]);
  t.deepEqual(
    [...found.other],
    [
      ["VUID-vkCmdDispatch-None-08114", 1],
      ["WARNING-Shader-OutputNotConsumed", 1],
      ["without a name", 1],
    ],
  );
});

test("a driver other than the pinned one is refused", (t) => {
  const bytes = Buffer.from("a driver");
  t.notThrows(() => check(bytes, createHash("sha256").update(bytes).digest("hex")));
  t.throws(() => check(bytes), { message: /has the SHA-256 \w{64}, and not the pinned \w{64}$/ });
});

test("arrays of HLSL are initialised in glslang's form, and nothing else changes", (t) => {
  const text = [
    "    float4 sums[2] = (float4[2])0;",
    "static uint WORDS[3] = Constructarray3_uint_(0u, 7u, 9u);",
    "    uint i = (uint)0;",
    "    x = Constructarray3_uint_(0u, 7u, 9u);",
  ];
  t.deepEqual(forGlslang(text.join("\n")).split("\n"), [
    "    float4 sums[2] = { (float4)0, (float4)0 };",
    "static uint WORDS[3] = { 0u, 7u, 9u };",
    text[2],
    text[3],
  ]);
});

test("results of DX12's compilers are read by file, with Windows paths and split lines", (t) => {
  const lines = [
    "Z:\\w\\forms\\0000-attention.51.hlsl\t120.5\t4028\t",
    "/w/forms/0001-gemm.51.hlsl\t3000.0\t0\terror X3663: thread sync operation / ",
    "/w/forms/0002-gemm.51.hlsl\t1",
  ];
  const rows = parse(lines.join("\n"));
  t.deepEqual(rows, [
    ["0000-attention.51.hlsl", { ms: 120.5, wrong: "" }],
    ["0001-gemm.51.hlsl", { ms: 3000, wrong: "error X3663: thread sync operation /" }],
  ]);
  t.is(times(rows.map(([, row]) => row)), "median 3000 ms, longest 3.0 s");
  t.is(times([]), "nothing compiled");
});

test("tests that launch kernels are grouped by module, one process each", (t) => {
  const names = [
    "ops::attention::tests::every_variant::all",
    "ops::attention::tests::causal",
    "device::gpu::tests::bounds::stops",
    "format::gguf::tests::values",
  ];
  t.deepEqual(grouped(names), ["device::gpu::", "ops::attention::"]);
});
