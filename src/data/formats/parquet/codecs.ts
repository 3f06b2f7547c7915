/** Decompresses pages. Every stated size is checked, so that a damaged page fails with an error. */
import zlib from "node:zlib";
import type { CompressionCodec } from "hyparquet";

import { type Decoder, importOptional } from "./decoder.js";

/** Decompresses bytes to exactly `size` bytes. Throws for any other size, and for damaged data. */
export type Unpack = (bytes: Uint8Array, size: number) => Uint8Array;

type External = Record<string, (bytes: Uint8Array, size: number) => Uint8Array>;

/** Available in Node from 22.15. */
const { zstdDecompressSync } = zlib as unknown as { zstdDecompressSync?: typeof zlib.gunzipSync };

/**
 * Returns the decompressor of a codec: Node's zlib where it supports the codec, else hyparquet or
 * hyparquet-compressors.
 *
 * Throws `ERR_OPTION` if hyparquet-compressors is needed and not installed.
 */
export async function findUnpacker(
  codec: CompressionCodec | undefined,
  decoder: Decoder,
  file: string,
): Promise<Unpack> {
  if (codec === undefined) throw new Error("a column without a codec");
  const unpack = listUnpackers(decoder)[codec];
  if (unpack !== undefined) return requireExactSize(unpack);
  const what = `${file}: Parquet compressed by ${codec.toLowerCase()}`;
  const { compressors } = (await importOptional("hyparquet-compressors", what)) as { compressors: External };
  const external = compressors[codec];
  if (external === undefined) throw new Error(`unknown codec ${codec}`);
  return requireExactSize((bytes, size) => {
    CHECKS[codec]?.(bytes, size);
    return external(bytes, size);
  });
}

function listUnpackers(decoder: Decoder): Partial<Record<CompressionCodec, Unpack>> {
  const limitSize = (size: number): zlib.ZlibOptions => ({ maxOutputLength: Math.max(size, 1) });
  return {
    UNCOMPRESSED: (bytes) => bytes,
    SNAPPY: (bytes, size) => {
      const unpacked = new Uint8Array(size);
      decoder.snappyUncompress(bytes, unpacked);
      return unpacked;
    },
    GZIP: (bytes, size) => zlib.gunzipSync(bytes, limitSize(size)),
    BROTLI: (bytes, size) => zlib.brotliDecompressSync(bytes, limitSize(size)),
    ...(zstdDecompressSync !== undefined && {
      ZSTD: (bytes, size) => zstdDecompressSync(bytes, limitSize(size)),
    }),
  };
}

function requireExactSize(unpack: Unpack): Unpack {
  return (bytes, size) => {
    const unpacked = unpack(bytes, size);
    if (unpacked.length !== size) throw new Error(`a page has ${unpacked.length} bytes, but states ${size}`);
    return unpacked;
  };
}

/** Size checks that hyparquet-compressors does not make before it allocates or returns. */
const CHECKS: Partial<Record<CompressionCodec, (bytes: Uint8Array, size: number) => void>> = {
  ZSTD: checkZstd,
  LZ4_RAW: (bytes, size) => checkLz4(readLz4Size(bytes), size),
  LZ4: (bytes, size) => {
    if (readHadoopSize(bytes) !== size) checkLz4(readLz4Size(bytes), size);
  },
};

/** The largest window that zstd accepts by default. */
const ZSTD_WINDOW = 1 << 27;

/** Checks the size and window of the first frame (RFC 8878, 3.1.1.1), which determine the allocation. */
function checkZstd(bytes: Uint8Array, size: number): void {
  const flags = bytes[4] ?? 0;
  const isSingle = (flags & 0x20) !== 0;
  const sizeBytes = [isSingle ? 1 : 0, 2, 4, 8][flags >> 6] as number;
  const offset = 5 + (isSingle ? 0 : 1) + ([0, 1, 2, 4][flags & 3] as number);
  if (!isSingle) {
    const descriptor = bytes[5] ?? 0;
    const base = 2 ** (10 + (descriptor >> 3));
    if (base + (base / 8) * (descriptor & 7) > ZSTD_WINDOW)
      throw new Error("a zstd window that is too large");
  }
  if (sizeBytes === 0) return;
  let statedSize = sizeBytes === 2 ? 256 : 0;
  for (let i = 0; i < sizeBytes; i++) statedSize += (bytes[offset + i] ?? 0) * 2 ** (8 * i);
  if (statedSize > size) throw new Error(`a zstd frame of ${statedSize} bytes, but the page states ${size}`);
}

function checkLz4(found: number, size: number): void {
  if (found !== size) throw new Error(`a page of lz4 has ${found} bytes, but states ${size}`);
}

/** Returns the decompressed size of an LZ4 block; the decoder would pad a shorter one with zeros. */
function readLz4Size(bytes: Uint8Array): number {
  let [size, offset] = [0, 0];
  const length = (nibble: number): number => {
    let all = nibble;
    for (let byte = nibble === 15 ? 255 : 0; byte === 255;) all += byte = bytes[offset++] ?? 0;
    return all;
  };
  while (offset < bytes.length) {
    const token = bytes[offset++] as number;
    const literals = length(token >> 4);
    size += literals;
    offset += literals;
    if (offset >= bytes.length) return offset === bytes.length ? size : -1;
    offset += 2;
    size += length(token & 15) + 4;
  }
  return size;
}

/** Returns the total size of Hadoop's LZ4 frames; −1 if the bytes are not such frames. */
function readHadoopSize(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let [size, offset] = [0, 0];
  while (offset + 8 <= bytes.length) {
    size += view.getUint32(offset);
    offset += 8 + view.getUint32(offset + 4);
  }
  return offset === bytes.length ? size : -1;
}
