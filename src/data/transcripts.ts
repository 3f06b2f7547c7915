/** Converts rows of speech to examples: transcripts as the decoder's input and labels. */
import { SAMPLE_RATE } from "./audio.js";
import { throwIfAborted } from "../errors.js";
import { type Encoded, type Encoder, encodeTexts, runPipeline } from "./encode.js";
import { checkIds, splitIntoChunks, type OnProgress } from "./examples.js";
import { describeRow, createRowError } from "./source/origin.js";
import type { DataChunk, SpeechData } from "./read.js";
import { countRow, countUnused } from "./report.js";
import type { SpeechRow } from "./speech.js";
import { ExampleStore } from "./store.js";

export interface TranscriptOptions {
  /** The start tokens of a text; all except the first are trained on. */
  beginning: readonly number[];
  /** The first is appended to each text. */
  eosTokenIds: readonly number[];
  /** The maximum tokens of a text; longer ones are truncated. */
  maxLength: number;
  /** The maximum samples of a row. */
  windowSamples: number;
  vocabSize: number;
  signal?: AbortSignal | undefined;
  onProgress?: OnProgress | undefined;
}

/**
 * Tokenises transcripts, in file order; samples are read when a batch needs them.
 *
 * Throws `ERR_DATA_ROW` with file and line for speech longer than the model's window.
 */
export async function tokenizeTranscripts(
  data: SpeechData,
  encoder: Encoder,
  { beginning, eosTokenIds, maxLength, windowSamples, vocabSize, signal, onProgress }: TranscriptOptions,
): Promise<ExampleStore> {
  throwIfAborted(signal);
  const store = new ExampleStore("tokens", vocabSize);
  const end = eosTokenIds.slice(0, 1);
  const encode = async ({ part, read }: DataChunk<SpeechRow[]>) => {
    const texts = part.map(({ text }) => text);
    const encoded = await encodeTexts(encoder, texts, { addSpecialTokens: false, limit: maxLength });
    return { rows: part, read, encoded };
  };
  for (const source of data.sources) {
    const { file, size } = source;
    const report = store.begin(source);
    for await (const { rows, encoded, read } of runPipeline(
      splitIntoChunks(source.parts(signal)),
      encode,
      signal,
    )) {
      for (const [i, { line, length, samples, unused }] of rows.entries()) {
        if (length > windowSamples) {
          const [is, most] = [length, windowSamples].map(
            (count) => `${Math.ceil((10 * count) / SAMPLE_RATE) / 10} s`,
          );
          throw createRowError(
            source,
            line,
            `the speech is ${is} long, but the model's window is ${most}; split it, and its text`,
          );
        }
        countUnused(report, line, unused);
        const { ids, total } = encoded[i] as Encoded;
        const tokens = Int32Array.of(...beginning, ...ids, ...end).subarray(0, maxLength);
        checkIds(tokens, describeRow(source, line), vocabSize);
        store.addSpeech(tokens, samples);
        const trained = store.trainedAt(store.length - 1);
        countRow(report, line, { total: beginning.length + total + end.length, maxLength, trained });
      }
      onProgress?.({ file, read, size, tokens: store.tokens });
    }
  }
  return store;
}
