/** WAV files as encoders write them, and damaged ones. */
import test from "ava";
import { checkWaveSize, readWave } from "../../src/data/wave.js";

const refuse = (what: string): never => {
  throw new Error(what);
};

function chunk(name: string, body: Buffer, told = body.length): Buffer {
  const head = Buffer.alloc(8);
  head.write(name, 0);
  head.writeUInt32LE(told, 4);
  return Buffer.concat([head, body, Buffer.alloc(body.length % 2)]);
}

function format({ kind = 1, channels = 1, rate = 16_000, bits = 16, extensible = false } = {}): Buffer {
  const body = Buffer.alloc(extensible ? 40 : 16);
  body.writeUInt16LE(extensible ? 0xfffe : kind, 0);
  body.writeUInt16LE(channels, 2);
  body.writeUInt32LE(rate, 4);
  body.writeUInt32LE((rate * channels * bits) / 8, 8);
  body.writeUInt16LE((channels * bits) / 8, 12);
  body.writeUInt16LE(bits, 14);
  if (extensible) body.writeUInt16LE(kind, 24);
  return chunk("fmt ", body);
}

function riff(...chunks: Buffer[]): Uint8Array {
  const body = Buffer.concat([Buffer.from("WAVE"), ...chunks]);
  return Buffer.concat([Buffer.from("RIFF"), Buffer.alloc(4), body]);
}

const shorts = (...values: number[]): Buffer => Buffer.from(Int16Array.from(values).buffer);
const floats = (...values: number[]): Buffer => Buffer.from(Float32Array.from(values).buffer);

test("16 bits and floats, one channel and several, any sequence of chunks", (t) => {
  const whole = [0, 0.5, -1, 32767 / 32768];
  const samples = shorts(0, 16_384, -32_768, 32_767);
  const read = (...chunks: Buffer[]): number[] => [...readWave(riff(...chunks), refuse)];
  t.deepEqual(read(format(), chunk("data", samples)), whole);
  t.deepEqual(read(format({ extensible: true }), chunk("data", samples)), whole);
  // A chunk of odd length, and one after the samples.
  const list = chunk("LIST", Buffer.from("abc"));
  t.deepEqual(read(list, format(), list, chunk("data", samples), list), whole);
  t.deepEqual(read(format({ kind: 3, bits: 32 }), chunk("data", floats(0.25, -0.5))), [0.25, -0.5]);
  const three = format({ kind: 3, bits: 32, channels: 3, extensible: true });
  t.deepEqual(read(three, chunk("data", floats(0.3, 0.6, 0.9, -1, 0, 1))), [Math.fround(0.6), 0]);
  t.deepEqual(read(format({ channels: 2 }), chunk("data", shorts(16_384, -16_384, 8192, 0))), [0, 0.125]);
  // The length that a streaming writer leaves, since it could not go back.
  t.deepEqual(read(format(), chunk("data", samples, 0xffffffff)), whole);
  // A view into a larger buffer.
  const within = Buffer.concat([Buffer.from([1, 2, 3]), riff(format(), chunk("data", samples))]).subarray(3);
  t.deepEqual([...readWave(within, refuse)], whole);
});

test("invalid and unsupported files are refused", (t) => {
  const samples = chunk("data", shorts(1, 2));
  const cases: [bytes: Uint8Array, message: RegExp][] = [
    [new Uint8Array(), /is not a WAV file/],
    [Buffer.from("ID3 an mp3 that goes on"), /is not a WAV file/],
    [riff(format()), /has no "data"/],
    [riff(samples), /has "data" before "fmt "/],
    [riff(format({ rate: 44_100 }), samples), /is at 44100 Hz, but must be at 16000; resample it/],
    [riff(format({ bits: 24 }), samples), /has 24-bit samples of format 1; 16-bit/],
    [riff(format({ kind: 7, bits: 8 }), samples), /has 8-bit samples of format 7/],
    [riff(format({ channels: 0 }), samples), /has no channels/],
    [riff(format({ channels: 3 }), samples), /4 bytes of samples, not a multiple of a frame of 3 channels/],
    [riff(format(), chunk("data", shorts(1), 100)), /ends within "data", which has 100 bytes/],
    [riff(chunk("fmt ", Buffer.alloc(4)), samples), /has a "fmt " of 4 bytes/],
  ];
  for (const [bytes, message] of cases) t.throws(() => readWave(bytes, refuse), { message });
  t.notThrows(() => checkWaveSize(1 << 20, refuse));
  t.throws(() => checkWaveSize(2 ** 31, refuse), { message: /has 2147483648 bytes/ });
});
