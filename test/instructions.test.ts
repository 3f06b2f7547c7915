/** `LOWRANK_ISA` limits the native kernels to fewer instructions than the processor has. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

import test from "ava";

const index = fileURLToPath(new URL("../src/index.ts", import.meta.url));
const PROGRAM = `import { devices, ones } from ${JSON.stringify(index)};
try { console.log(await ones([3], { device: "cpu" }).sum().item(), devices()[0].backend); }
catch (error) { console.log(error.code, error.message); }`;

function run(level: string): string {
  const args = ["--import=tsx", "--input-type=module", "--eval", PROGRAM];
  const env = { ...process.env, NODE_OPTIONS: "", LOWRANK_ISA: level };
  return spawnSync(process.execPath, args, { encoding: "utf8", env }).stdout.trim();
}

test("the lowest level is always available, and a device reports its level", (t) => {
  const [level, label] = process.arch === "arm64" ? ["neon", "NEON"] : ["baseline", "SSE2"];
  t.is(run(level), `3 ${label}`);
});

test("by default the best level is used; one that the processor lacks is refused with a list of the available ones", (t) => {
  t.regex(run(""), /^3 (AVX-512(, AMX)?|AVX2|SSE2|NEON)$/);
  t.regex(
    run("avx1024"),
    /^ERR_OPTION LOWRANK_ISA is "avx1024"; this processor has (neon(, neonbf16)?|baseline(, avx2(, avx512(, avx512bf16(, amx)?)?)?)?)$/,
  );
});
