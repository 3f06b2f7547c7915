import { writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import { readLabels, saveLabels } from "../../src/train/label-names.js";
import { temporary } from "../hashed.js";

test("class names are saved in their order, and read as transformers writes them", async (t) => {
  const folder = temporary();
  t.is(readLabels(folder), undefined);
  const many = Array.from({ length: 12 }, (_, i) => `class ${11 - i}`);
  await saveLabels(folder, many);
  t.deepEqual(readLabels(folder), many);
  const model = temporary();
  writeFileSync(join(model, "config.json"), JSON.stringify({ id2label: { 1: "b", 0: "a" } }));
  t.deepEqual(readLabels(model), ["a", "b"]);
  for (const [id2label, message] of [
    [{ 0: "a", 2: "b" }, /id2label has no name for class 1/],
    [{ 0: 3 }, /id2label\.0 must be a string/],
    [["a"], /id2label must be an object/],
  ] as const) {
    writeFileSync(join(model, "config.json"), JSON.stringify({ id2label }));
    t.throws(() => readLabels(model), { code: "ERR_FILE_FORMAT", message });
  }
});
