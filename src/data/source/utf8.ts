import { LowrankError } from "../../errors.js";

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Returns the length of the byte order mark at the start of `bytes`: 3 or 0. */
export function measureBom(bytes: Uint8Array): number {
  return bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0;
}

/** Removes a byte order mark, which Notepad and PowerShell write. */
export function removeBom(text: string): string {
  return text.startsWith("\uFEFF") ? text.slice(1) : text;
}

/** Returns the offset of the first byte that is not valid UTF-8 (RFC 3629: no surrogates, no overlong forms), or −1. */
export function findInvalidByte(bytes: Uint8Array): number {
  let i = 0;
  while (i < bytes.length) {
    const lead = bytes[i] ?? 0;
    if (lead < 0x80) {
      i++;
      continue;
    }
    const length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4) return i;
    const second = bytes[i + 1] ?? 0;
    const low = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
    const high = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
    if (second < low || second > high) return i;
    for (let k = 2; k < length; k++) {
      if (((bytes[i + k] ?? 0) & 0xc0) !== 0x80) return i;
    }
    i += length;
  }
  return -1;
}

/**
 * Decodes strictly. For the message, `file` is the source's name, and `offset` and `line` the position of `bytes` in
 * it.
 *
 * Throws `ERR_FILE_FORMAT` with line and byte offset (from 0) of invalid UTF-8.
 */
export function decodeUtf8(bytes: Uint8Array, file: string, offset = 0, line = 1): string {
  try {
    return decoder.decode(bytes);
  } catch (cause) {
    const invalid = findInvalidByte(bytes);
    if (invalid < 0)
      throw new LowrankError("ERR_FILE_FORMAT", `${file}: too large to be read at once`, { cause });
    let lines = line;
    for (let i = 0; i < invalid; i++) if (bytes[i] === 0x0a) lines++;
    const hex = (bytes[invalid] ?? 0).toString(16).padStart(2, "0");
    const mark = offset + invalid === 0 && (bytes[0] ?? 0) >= 0xfe;
    const hint = mark ? "it looks like UTF-16: save it as UTF-8" : "save it as UTF-8";
    const where = `${file}:${lines}: invalid UTF-8 at byte ${offset + invalid} (0x${hex})`;
    throw new LowrankError("ERR_FILE_FORMAT", `${where}; ${hint}`);
  }
}
