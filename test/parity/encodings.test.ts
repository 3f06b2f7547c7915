/** Encodings compared with transformers' tokenizers (encodings.py): pairs, offsets, word ids, truncation, padding. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import test from "ava";

import { LowrankError, scope, Tokenizer, type EncodeBatchOptions, type Encoding } from "../../src/index.js";
import { openGguf } from "../../src/gguf/read.js";
import { Metadata } from "../../src/gguf/import/metadata.js";
import { readArchitecture } from "../../src/gguf/import/names.js";
import { readTokenizer } from "../../src/gguf/import/tokenizer.js";
import { tokenizersFolder } from "../gguf/tokenizers.js";
import { goldens } from "./goldens.js";

interface Row {
  ids: number[];
  mask: number[];
  types: number[];
  offsets: [number, number][];
  words: (number | null)[];
  sequences: (number | null)[];
}

interface Case {
  texts: string[];
  pairs: string[] | null;
  options: EncodeBatchOptions;
  rows?: Row[];
  refused?: true;
}

const folder = join(goldens, "encodings");
const cases = JSON.parse(readFileSync(join(folder, "cases.json"), "utf8")) as Record<string, Case[]>;

function tokenizerOf(name: string): Tokenizer {
  if (!name.startsWith("gguf/")) return new Tokenizer(join(folder, name, "tokenizer.json"));
  const path = join(tokenizersFolder, `${name.slice("gguf/".length)}.gguf`);
  const meta = new Metadata(openGguf(path), path);
  return readTokenizer(meta, readArchitecture(meta))!.tokenizer();
}

/** Returns each row of a batch, from its tensors. */
async function rowsOf(tokenizer: Tokenizer, { texts, pairs, options }: Case): Promise<Row[]> {
  const batch = scope(() =>
    tokenizer.encodeBatch(texts, { ...options, pairs: pairs ?? undefined, offsets: true, device: "cpu" }),
  );
  const T = batch.ids.shape[1] as number;
  const lists = await Promise.all(
    [batch.ids, batch.attentionMask, batch.tokenTypeIds].map(async (one) => Array.from(await one.data())),
  );
  for (const one of [batch.ids, batch.attentionMask, batch.tokenTypeIds]) one.dispose();
  return texts.map((_, b) => {
    const [ids, mask, types] = lists.map((list) => list.slice(b * T, (b + 1) * T)) as [
      number[],
      number[],
      number[],
    ];
    const { offsets, wordIds, sequenceIds } = batch;
    return { ids, mask, types, offsets: offsets[b]!, words: wordIds[b]!, sequences: sequenceIds[b]! };
  });
}

for (const [name, all] of Object.entries(cases)) {
  test(`${name}: batches are encoded as in transformers`, async (t) => {
    const tokenizer = tokenizerOf(name);
    // A GGUF file names no padding token; the golden pads with the end token.
    const padTokenId = name.startsWith("gguf/") ? padOf(all) : undefined;
    for (const one of all) {
      const options = { ...one.options, padTokenId };
      const what = JSON.stringify([one.texts, one.pairs, one.options]);
      if (one.refused) {
        const error = await t.throwsAsync(() => rowsOf(tokenizer, { ...one, options }), undefined, what);
        t.true(error instanceof LowrankError && error.code === "ERR_OPTION", `${what}: ${String(error)}`);
      } else t.deepEqual(await rowsOf(tokenizer, { ...one, options }), one.rows, what);
    }
  });

  test(`${name}: single texts give the same tokens`, (t) => {
    const tokenizer = tokenizerOf(name);
    for (const { texts, pairs, options, rows } of all) {
      for (const [b, row] of (rows ?? []).entries()) {
        const { addSpecialTokens, maxLength } = options;
        const truncation = typeof options.truncation === "string" ? options.truncation : undefined;
        const given = { addSpecialTokens, maxLength, truncation, pair: pairs?.[b] };
        const kept = <V>(values: readonly V[]): V[] => values.filter((_, i) => row.mask[i] === 1);
        const expected = {
          ids: Int32Array.from(kept(row.ids)),
          tokenTypeIds: Int32Array.from(kept(row.types)),
          offsets: kept(row.offsets),
          wordIds: kept(row.words),
          sequenceIds: kept(row.sequences),
        } satisfies Encoding;
        t.deepEqual(tokenizer.encode(texts[b]!, { ...given, offsets: true }), expected);
        if (pairs === null) t.deepEqual(tokenizer.encode(texts[b]!, given), expected.ids);
      }
    }
  });
}

/** Returns the id in the padding of the first batch. */
function padOf(all: readonly Case[]): number {
  const row = all[0]!.rows!.find(({ mask }) => mask.includes(0))!;
  return row.ids[row.mask.indexOf(0)]!;
}
