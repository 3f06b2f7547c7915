/** The bytes of tokens: a token can be a part of a character, which has no text. */

type Json = Record<string, unknown>;

interface Step {
  type?: unknown;
  pattern?: { String?: unknown };
  content?: unknown;
  replacement?: unknown;
}

/** Decoders whose tokens can be parts of characters. */
const BYTE_DECODERS = ["ByteLevel", "ByteFallback"];

/** The tokens of a `tokenizer.json` as bytes. */
export class TokenBytes {
  private constructor(
    private readonly tokens: readonly (string | undefined)[],
    private readonly special: ReadonlySet<number>,
    private readonly convert: (token: string) => Buffer,
  ) {}

  /**
   * Reads the text of a valid `tokenizer.json`. Returns undefined where every token is whole characters: then its text
   * has its bytes.
   */
  static parse(text: string): TokenBytes | undefined {
    const json = JSON.parse(text) as { decoder?: unknown; added_tokens?: Json[]; model: { vocab: unknown } };
    const steps = listSteps(json.decoder);
    if (!steps.some(({ type }) => BYTE_DECODERS.includes(type as string))) return undefined;
    const tokens: (string | undefined)[] = [];
    const { vocab } = json.model;
    if (Array.isArray(vocab)) for (const [id, [token]] of (vocab as [string][]).entries()) tokens[id] = token;
    else for (const [token, id] of Object.entries(vocab as Record<string, number>)) tokens[id] = token;
    const special = new Set<number>();
    for (const added of json.added_tokens ?? []) {
      tokens[added["id"] as number] = added["content"] as string;
      if (added["special"] === true) special.add(added["id"] as number);
    }
    return new TokenBytes(tokens, special, (token) => convert(token, steps));
  }

  /** Returns the bytes of a token; undefined for an id that is not a token. */
  find(id: number): Buffer | undefined {
    const token = this.tokens[id];
    return token === undefined ? undefined : this.convert(token);
  }

  isSpecial(id: number): boolean {
    return this.special.has(id);
  }
}

function listSteps(decoder: unknown): Step[] {
  if (typeof decoder !== "object" || decoder === null) return [];
  const { decoders } = decoder as { decoders?: unknown };
  return Array.isArray(decoders) ? decoders.flatMap(listSteps) : [decoder as Step];
}

/** Applies the decoder's steps to one token. Steps on the ends of the whole text do not concern a token. */
function convert(token: string, steps: readonly Step[]): Buffer {
  let text = token;
  for (const { type, pattern, content, replacement } of steps) {
    if (type === "ByteLevel") return convertByteLevel(text);
    if (type === "ByteFallback" && /^<0x[0-9A-Fa-f]{2}>$/.test(text))
      return Buffer.from(text.slice(3, 5), "hex");
    if (type === "Replace" && typeof pattern?.String === "string" && typeof content === "string")
      text = text.replaceAll(pattern.String, () => content);
    if (type === "Metaspace" && typeof replacement === "string") text = text.replaceAll(replacement, " ");
  }
  return Buffer.from(text);
}

/** Returns the number of bytes of the incomplete character at the end; 0 for none. */
export function measureIncomplete(bytes: Uint8Array): number {
  for (let n = 1; n <= Math.min(3, bytes.length); n++) {
    const byte = bytes[bytes.length - n] as number;
    if (byte < 0x80) return 0;
    if (byte >= 0xc0) return n < (byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2) ? n : 0;
  }
  return 0;
}

/** GPT-2's characters for the 256 bytes: printable ones stand for themselves, others follow U+0100. */
const BYTES: ReadonlyMap<string, number> = (() => {
  const bytes = new Map<string, number>();
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    bytes.set(String.fromCharCode(printable ? byte : next++), byte);
  }
  return bytes;
})();

/** A token with another character, such as an added one, stands for itself. */
function convertByteLevel(token: string): Buffer {
  const bytes = Array.from(token, (character) => BYTES.get(character));
  return bytes.includes(undefined) ? Buffer.from(token) : Buffer.from(bytes as number[]);
}
