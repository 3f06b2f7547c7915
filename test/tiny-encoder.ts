/**
 * A tiny BERT, RoBERTa or DistilBERT whose tokens are letters, as a folder, and rows that it can learn to classify.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { manualSeed, saveModel } from "../src/index.js";
import { readBertConfig } from "../src/models/bert/config.js";
import { BertModel } from "../src/models/bert/model.js";
import { readDistilBertConfig } from "../src/models/distilbert/config.js";
import { DistilBertModel } from "../src/models/distilbert/model.js";
import { FreshWeights } from "../src/models/weights.js";
import { temporary, tinyModel } from "./hashed.js";

/** Creates a model of 99 tokens: one for each letter, with 1 in front and 2 at the end; at most 32 of them. */
export async function tinyEncoder(family: "bert" | "roberta" | "distilbert" = "bert"): Promise<string> {
  manualSeed(5);
  const model = family === "distilbert" ? tinyDistilBert() : tinyBert(family);
  const folder = join(temporary(), "encoder");
  await saveModel(model, folder);
  model.dispose();

  const letters = JSON.parse(readFileSync(join(tinyModel(), "tokenizer.json"), "utf8")) as object;
  const special = (id: string): object => ({ SpecialToken: { id, type_id: 0 } });
  const post_processor = {
    type: "TemplateProcessing",
    single: [special("<s>"), { Sequence: { id: "A", type_id: 0 } }, special("</s>")],
    pair: [{ Sequence: { id: "A", type_id: 0 } }, { Sequence: { id: "B", type_id: 1 } }],
    special_tokens: Object.fromEntries(
      ["<s>", "</s>"].map((token, i) => [token, { id: token, ids: [i + 1], tokens: [token] }]),
    ),
  };
  writeFileSync(join(folder, "tokenizer.json"), JSON.stringify({ ...letters, post_processor }));
  return folder;
}

function tinyBert(model_type: "bert" | "roberta"): BertModel {
  const config = readBertConfig({
    model_type,
    pad_token_id: 0,
    vocab_size: 99,
    hidden_size: 32,
    intermediate_size: 64,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    // RoBERTa's first position follows the padding's.
    max_position_embeddings: model_type === "bert" ? 32 : 33,
    hidden_dropout_prob: 0.1,
  });
  return new BertModel(config, new FreshWeights("cpu", 0.2), { pooler: model_type === "bert" });
}

function tinyDistilBert(): DistilBertModel {
  const config = readDistilBertConfig({
    model_type: "distilbert",
    vocab_size: 99,
    dim: 32,
    hidden_dim: 64,
    n_layers: 2,
    n_heads: 4,
    max_position_embeddings: 32,
  });
  return new DistilBertModel(config, new FreshWeights("cpu", 0.2));
}

/** Writes rows unchanged into a `.jsonl` file. */
export function rowsFile(rows: readonly object[], name = "rows.jsonl"): string {
  const file = join(temporary(), name);
  writeFileSync(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  return file;
}

/** Returns texts of varying length: texts about the sea have one label, and texts about land the other. */
export function seaAndLand(count: number): { text: string; label: string }[] {
  return Array.from({ length: count }, (_, i) => {
    const sea = (i * 7) % 3 === 0;
    const text = (sea ? "sss waves " : "mmm hills ").repeat(4).slice(0, 8 + ((i * 5) % 40));
    return { text, label: sea ? "sea" : "land" };
  });
}

/** Writes a classifier without dropout, whose masks depend on the shapes of batches. Returns its folder. */
export async function tinyEncoderWithoutDropout(): Promise<string> {
  const folder = await tinyEncoder();
  const file = join(folder, "config.json");
  const config = JSON.parse(readFileSync(file, "utf8")) as object;
  const none = { hidden_dropout_prob: 0, attention_probs_dropout_prob: 0, classifier_dropout: 0 };
  writeFileSync(file, JSON.stringify({ ...config, ...none }));
  return folder;
}
