/** The names of a classifier's classes, in a file next to the adapter that PEFT ignores. */
import { join } from "node:path";
import { SequenceClassifier } from "../models/classifier.js";
import { LABELS } from "../lora/formats/folder.js";
import { readConfigFields } from "../models/config-fields.js";
import type { Module } from "../nn/module.js";
import { writeWhole } from "../files/safetensors.js";

/** Writes `labels.json` with the fields `id2label` and `label2id` of transformers' `config.json`. */
export async function saveLabels(folder: string, labels: readonly string[]): Promise<void> {
  const id2label = Object.fromEntries(labels.map((label, id) => [id, label]));
  const label2id = Object.fromEntries(labels.map((label, id) => [label, id]));
  await writeWhole(join(folder, LABELS), `${JSON.stringify({ id2label, label2id }, null, 2)}\n`);
}

/**
 * Returns the classes of an adapter or of a classifier model; undefined if the folder names none.
 *
 * Errors: `ERR_FILE_FORMAT`.
 */
export function readLabels(folder: string): string[] | undefined {
  const file = readConfigFields(join(folder, LABELS)) ?? readConfigFields(join(folder, "config.json"));
  const named = file?.readObject("id2label");
  if (file === undefined || named === undefined) return undefined;
  const count = Object.keys(file.readValue("id2label") as object).length;
  return Array.from({ length: count }, (_, id) => {
    const label = named.readString(String(id));
    if (label === undefined) throw file.createError("id2label", `has no name for class ${id}`);
    return label;
  });
}

/** Sets a classifier's class names, which are saved with the model. */
export function nameClasses(model: Module, labels: readonly string[] | undefined): void {
  if (model instanceof SequenceClassifier && labels?.length === model.config.labels.length) {
    model.config.labels = labels;
  }
}
