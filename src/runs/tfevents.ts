/**
 * TensorBoard's event files: records of protocol buffers, each with checksums of its length and its content.
 *
 * Source: TensorFlow's record_writer.h (TFRecord), event.proto and summary.proto.
 */
import type { RecordedEvent } from "./events-file.js";
import { type MetricsFormat, readNumber } from "./metrics.js";

/** Fields of an event, with their TensorBoard tags. */
const STEP_TAGS = {
  loss: "train/loss",
  learningRate: "train/learning_rate",
  gradNorm: "train/grad_norm",
  tokensPerSecond: "train/tokens_per_second",
  memoryBytes: "train/memory_bytes",
};
const EVAL_TAGS = { loss: "eval/loss", perplexity: "eval/perplexity" };
const CLASS_TAGS = { accuracy: "eval/accuracy", macroF1: "eval/macro_f1" };

/** The table of CRC-32C (Castagnoli, reflected) for one byte. */
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc >>> 0;
});

function computeCrc32c(bytes: Buffer): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ (TABLE[(crc ^ byte) & 0xff] as number);
  return ~crc >>> 0;
}

/** Returns the checksum as TFRecord stores it: rotated, plus a constant. */
function maskChecksum(bytes: Buffer): Buffer {
  const crc = computeCrc32c(bytes);
  const stored = Buffer.alloc(4);
  stored.writeUInt32LE((((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0);
  return stored;
}

function record(content: Buffer): Buffer {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(content.length));
  return Buffer.concat([length, maskChecksum(length), content, maskChecksum(content)]);
}

/** Wire types of protocol buffers. */
const VARINT = 0;
const EIGHT_BYTES = 1;
const DELIMITED = 2;
const FOUR_BYTES = 5;

function encodeVarint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  return Buffer.from([...bytes, rest]);
}

function encodeField(number: number, wire: number, content: Buffer): Buffer {
  return Buffer.concat([encodeVarint(number * 8 + wire), content]);
}

function encodeDelimited(number: number, content: Buffer): Buffer {
  return encodeField(number, DELIMITED, Buffer.concat([encodeVarint(content.length), content]));
}

/** Encodes an Event: wall_time = 1, step = 2, and its content. */
function encodeEvent(timeMs: number, step: number, what: Buffer): Buffer {
  const time = Buffer.alloc(8);
  time.writeDoubleLE(timeMs / 1000);
  // Fields with the value 0 are omitted.
  const steps = step === 0 ? [] : [encodeField(2, VARINT, encodeVarint(step))];
  return record(Buffer.concat([encodeField(1, EIGHT_BYTES, time), ...steps, what]));
}

/** Encodes a Summary.Value: tag = 1, simple_value = 2. */
function encodeScalar(tag: string, value: number): Buffer {
  const single = Buffer.alloc(4);
  single.writeFloatLE(value);
  return encodeDelimited(
    1,
    Buffer.concat([encodeDelimited(1, Buffer.from(tag)), encodeField(2, FOUR_BYTES, single)]),
  );
}

let length = 0;

/**
 * Each part of a run writes a new file with a unique name, because TensorBoard does not reread known files from the start.
 * The file begins with a session start, which makes TensorBoard discard earlier values of the same steps.
 */
export class TensorboardFormat implements MetricsFormat {
  /** The folder to open in TensorBoard. */
  static readonly folder = "tensorboard";
  readonly name: string;
  readonly #startTime: number;

  /** `began` is the start, in milliseconds since 1970. */
  constructor(began = Date.now()) {
    this.#startTime = began;
    const seconds = Math.floor(this.#startTime / 1000);
    this.name = `${TensorboardFormat.folder}/events.out.tfevents.${seconds}.${process.pid}.${length++}.lowrank`;
  }

  /** The file's name suffices to identify it. */
  isOwn(): boolean {
    return true;
  }

  encodeHead(): Buffer {
    // file_version = 3; session_log = 7, whose status = 1 is START.
    const version = encodeDelimited(3, Buffer.from("brain.Event:2"));
    const start = encodeDelimited(7, encodeField(1, VARINT, encodeVarint(1)));
    return Buffer.concat([encodeEvent(this.#startTime, 0, version), encodeEvent(this.#startTime, 0, start)]);
  }

  add(event: RecordedEvent): Buffer {
    const step = readNumber(event, "step");
    if (step === undefined) return Buffer.alloc(0);
    const scalars =
      event.type === "step"
        ? encodeScalars(event, STEP_TAGS)
        : event.type === "eval"
          ? [
              ...encodeScalars(event, EVAL_TAGS),
              ...encodeScalars((event["classes"] ?? {}) as RecordedEvent, CLASS_TAGS),
            ]
          : [];
    // summary = 5
    return scalars.length === 0
      ? Buffer.alloc(0)
      : encodeEvent(event.at, step, encodeDelimited(5, Buffer.concat(scalars)));
  }

  takeRest(): Buffer {
    return Buffer.alloc(0);
  }
}

function encodeScalars(event: RecordedEvent, tags: Readonly<Record<string, string>>): Buffer[] {
  return Object.entries(tags).flatMap(([name, tag]) => {
    const value = readNumber(event, name);
    return value === undefined ? [] : [encodeScalar(tag, value)];
  });
}
