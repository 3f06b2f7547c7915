/**
 * A tiny Whisper with a window of a second and with letters as tokens, as a folder, and tones that it can learn to
 * name.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { manualSeed, saveModel, WhisperForConditionalGeneration, type SpokenText } from "../src/index.js";
import { temporary, tinyModel } from "./hashed.js";

const SPECIAL = ["<|start|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>", "<|notimes|>"];
const [START, ENGLISH, GERMAN, TRANSLATE, TRANSCRIBE, NO_TIMES] = SPECIAL.map((_, i) => 99 + i) as [
  number,
  number,
  number,
  number,
  number,
  number,
];
const END = 2;

/** Creates a model of 105 tokens: one for each letter, and the initial tokens of texts; at most 24 of them. */
export async function tinyWhisper({ multilingual = true } = {}): Promise<string> {
  manualSeed(5);
  const model = WhisperForConditionalGeneration.fromConfig(
    {
      vocab_size: 99 + SPECIAL.length,
      num_mel_bins: 16,
      d_model: 32,
      encoder_layers: 1,
      encoder_attention_heads: 2,
      encoder_ffn_dim: 64,
      decoder_layers: 2,
      decoder_attention_heads: 2,
      decoder_ffn_dim: 64,
      max_source_positions: 50,
      max_target_positions: 24,
      decoder_start_token_id: START,
      bos_token_id: END,
      eos_token_id: END,
      // Not the end token: its row is initialised with 0, which would make the end token unlikely.
      pad_token_id: 0,
      init_std: 0.2,
      dropout: 0.1,
    },
    { device: "cpu" },
  );
  const folder = join(temporary(), "whisper");
  await saveModel(model, folder);
  model.dispose();
  const letters = JSON.parse(readFileSync(join(tinyModel(), "tokenizer.json"), "utf8")) as {
    added_tokens: object[];
    model: { vocab: Record<string, number> };
  };
  for (const [i, content] of SPECIAL.entries()) {
    letters.added_tokens.push({ ...letters.added_tokens[0], id: 99 + i, content });
    letters.model.vocab[content] = 99 + i;
  }
  const generation = {
    decoder_start_token_id: START,
    eos_token_id: END,
    pad_token_id: 0,
    is_multilingual: multilingual,
    no_timestamps_token_id: NO_TIMES,
    suppress_tokens: [0, 1, START, NO_TIMES],
    begin_suppress_tokens: [END],
    ...(multilingual && {
      lang_to_id: { "<|en|>": ENGLISH, "<|de|>": GERMAN },
      task_to_id: { translate: TRANSLATE, transcribe: TRANSCRIBE },
    }),
  };
  const preprocessor = { feature_size: 16, chunk_length: 1, sampling_rate: 16_000 };
  for (const [name, value] of Object.entries({
    "tokenizer.json": letters,
    "generation_config.json": generation,
    "preprocessor_config.json": preprocessor,
  }))
    writeFileSync(join(folder, name), JSON.stringify(value));
  return folder;
}

/** Returns high and low tones of varying length and loudness, with their names; samples are exact in 16 bits. */
export function tones(count: number): SpokenText[] {
  return Array.from({ length: count }, (_, i) => {
    const high = (i * 7) % 3 === 0;
    const hertz = (high ? 3000 : 300) + 10 * (i % 5);
    const loud = 0.3 + 0.1 * (i % 4);
    const audio = Float32Array.from({ length: 4000 + 900 * (i % 11) }, (_, t) => {
      const value = loud * Math.sin((2 * Math.PI * hertz * t) / 16_000);
      return Math.round(value * 32768) / 32768;
    });
    return { audio, text: high ? "high" : "low" };
  });
}

/** Returns the bytes of a WAV file of one channel, in 16 bits. */
export function wave(samples: Float32Array): Buffer {
  const bytes = Buffer.alloc(44 + 2 * samples.length);
  bytes.write("RIFF", 0);
  bytes.writeUInt32LE(36 + 2 * samples.length, 4);
  bytes.write("WAVEfmt ", 8);
  bytes.writeUInt32LE(16, 16);
  bytes.writeUInt16LE(1, 20);
  bytes.writeUInt16LE(1, 22);
  bytes.writeUInt32LE(16_000, 24);
  bytes.writeUInt32LE(32_000, 28);
  bytes.writeUInt16LE(2, 32);
  bytes.writeUInt16LE(16, 34);
  bytes.write("data", 36);
  bytes.writeUInt32LE(2 * samples.length, 40);
  for (const [i, sample] of samples.entries()) bytes.writeInt16LE(Math.round(sample * 32768), 44 + 2 * i);
  return bytes;
}

/** Writes a `.jsonl` file that names WAV files next to it. */
export function speechFile(rows: readonly SpokenText[]): string {
  const folder = temporary();
  const lines = rows.map(({ audio, text }, i) => {
    writeFileSync(join(folder, `${i}.wav`), wave(audio));
    return JSON.stringify({ audio: `${i}.wav`, text });
  });
  const file = join(folder, "speech.jsonl");
  writeFileSync(file, `${lines.join("\n")}\n`);
  return file;
}
