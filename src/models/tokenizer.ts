/** A model's tokenizer, defined by `tokenizer.json`. */
import { readFileSync } from "node:fs";
import { dirname } from "node:path";

import type * as Binding from "../../native/binding.js";
import { resolveNativePath } from "../files/archive.js";
import {
  checkFlag,
  checkList,
  checkNumberThat,
  checkKnownOptions,
  refuse,
  checkText,
} from "../arguments/check.js";
import { type Conversation, type Message, parseMessages, parseTools } from "../chat/messages.js";
import { ChatTemplate } from "../chat/template.js";
import type { ChatEncoder, Encoded, PartEncoder, PlacedIds } from "../data/encode.js";
import { LowrankError } from "../errors.js";
import { call, wrapMethods, native, unwrapResult } from "../native/binding.js";
import { enterCpuUse } from "../tensor/scope.js";
import { CompanionFiles, openCompanions } from "./companion-files.js";
import { explainTemplates, type ChatTemplates, TemplatedTokenizer } from "../lora/adapter/chat-templates.js";
import {
  readChatTemplate,
  readSpecialTokens,
  type TemplateSource,
  readStoredTemplates,
} from "./chat-template-files.js";
import { type EncodingDefaults, readEncodingDefaults } from "./encoding-defaults.js";
import { type Beginning, CHARACTERS_PER_TOKEN, cutBeginning, SMALLEST_BEGINNING } from "./beginning.js";
import {
  encode,
  encodeBatch,
  type BatchEncoding,
  type BatchPlaces,
  type EncodeBatchOptions,
  type EncodeOptions,
  type Encoding,
} from "./encoding.js";
import { TokenBytes } from "./token-bytes.js";

/** Decodes token ids one at a time. */
export interface DecodeStream {
  /** Adds an id and returns the text that it completes, which may be empty. */
  push(id: number): string;
  /** Whether the last ids may be part of a character. */
  held(): boolean;
  /** Returns the held-back text at the end; incomplete bytes become replacement characters. */
  rest(): string;
}

/** Options of `encodeAll`. */
export type EncodeAllOptions = Pick<EncodeOptions, "addSpecialTokens">;

/** Options of `decode` and `decodeStream`. */
export interface DecodeOptions {
  /** Whether to omit special tokens from the text; true. */
  skipSpecialTokens?: boolean | undefined;
}

/** Options of `applyChatTemplate`. */
export interface ChatTemplateOptions {
  /** Whether to append the beginning of an assistant turn; false. */
  addGenerationPrompt?: boolean | undefined;
  /** JSON schemas of the tools that the assistant may call. */
  tools?: readonly object[] | undefined;
  /** Whether to return ids instead of text; true. */
  tokenize?: boolean | undefined;
  /** The text of another template; by default the model's. */
  chatTemplate?: string | undefined;
  /** Additional variables for the template, such as `{ enable_thinking: false }`. */
  chatTemplateKwargs?: Readonly<Record<string, unknown>> | undefined;
}

const CHAT_OPTIONS = [
  "addGenerationPrompt",
  "tools",
  "tokenize",
  "chatTemplate",
  "chatTemplateKwargs",
] as const;

/** A model's tokenizer, defined by `tokenizer.json`. */
export class Tokenizer extends TemplatedTokenizer {
  readonly #native: Binding.Tokenizer;
  /** Compiled templates and their sources, by whether there are tools; compiled on first use. */
  readonly #templates = new Map<boolean, { source: TemplateSource; template: ChatTemplate }>();
  #assigned: ChatTemplates | undefined;
  /** The model's templates, by whether there are tools; read on first use. */
  readonly #storedTemplates = new Map<boolean, TemplateSource | undefined>();
  /** Whether its `tokenizer.json` is generated from a GGUF file. */
  readonly #isGenerated: boolean;
  /** The file that it was read from. */
  readonly path: string;
  /** @internal Its companion files. */
  readonly companions: CompanionFiles;

  /** Throws `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`, `ERR_OPTION`. */
  constructor(path: string);
  /** @internal Wraps a tokenizer built from the GGUF file at `path`, with generated companion files. */
  constructor(path: string, parts: { own: Binding.Tokenizer; companions: CompanionFiles });
  constructor(path: string, parts?: { own: Binding.Tokenizer; companions: CompanionFiles }) {
    super();
    this.path = checkText("new Tokenizer", "path", path);
    if (parts !== undefined && !(parts?.companions instanceof CompanionFiles))
      refuse("new Tokenizer", "the second argument", "omitted", parts);
    this.#native =
      parts?.own ?? wrapMethods(call(() => native().Tokenizer.fromFile(resolveNativePath(path))));
    this.companions = parts?.companions ?? openCompanions(dirname(path));
    this.#isGenerated = parts !== undefined;
  }

  /** @internal Returns the text of its `tokenizer.json`, read or generated, and the file's name in errors. */
  readSource(): { place: string; text: string } {
    const name = "tokenizer.json";
    const generated = this.#isGenerated ? this.companions.text(name) : undefined;
    if (generated !== undefined) return { place: this.companions.place(name), text: generated };
    return { place: this.path, text: readFileSync(this.path, "utf8") };
  }

  /**
   * Encodes `text`. Returns its token ids; with `pair`, `offsets: true` or `wordIds: true` an `Encoding`, which also
   * has token types, offsets in UTF-16 units (`text.slice(start, end)`), word ids and sequence ids. `maxLength`
   * truncates to that many tokens, special tokens included.
   *
   * Throws `ERR_OPTION`, for example where `only_first` or `only_second` cannot shorten the row to `maxLength`.
   */
  encode(text: string, given: EncodeOptions & { pair: string }): Encoding;
  encode(text: string, given: EncodeOptions & { offsets: true }): Encoding;
  encode(text: string, given: EncodeOptions & { wordIds: true }): Encoding;
  encode(
    text: string,
    given?: EncodeOptions & { pair?: undefined; offsets?: false | undefined; wordIds?: false | undefined },
  ): Int32Array;
  encode(text: string, given?: EncodeOptions): Int32Array | Encoding;
  encode(text: string, given: EncodeOptions = {}): Int32Array | Encoding {
    return encode(this.#native, this.#defaults, text, given);
  }

  /**
   * Encodes texts, or pairs of texts, as one batch for `model.forward`: ids, attention mask and token types, i32 [B,
   * T]. By default rows are padded to the longest, on the side and with the token that `tokenizer_config.json` names,
   * and truncated where `maxLength` or `truncation` is given. With `offsets: true` or `wordIds: true` the batch also
   * has offsets, word ids and sequence ids by row and token.
   *
   * Throws `ERR_OPTION`, for example for rows of different lengths without padding, a tokenizer without a padding
   * token, or a row that cannot be shortened to `maxLength`; `ERR_FILE_FORMAT` for a malformed `tokenizer_config.json`.
   */
  encodeBatch(
    texts: readonly string[],
    given: EncodeBatchOptions & { offsets: true },
  ): BatchEncoding & BatchPlaces;
  encodeBatch(
    texts: readonly string[],
    given: EncodeBatchOptions & { wordIds: true },
  ): BatchEncoding & BatchPlaces;
  encodeBatch(texts: readonly string[], given?: EncodeBatchOptions): BatchEncoding & Partial<BatchPlaces>;
  encodeBatch(
    texts: readonly string[],
    given: EncodeBatchOptions = {},
  ): BatchEncoding & Partial<BatchPlaces> {
    return encodeBatch(this.#native, this.#defaults, texts, given);
  }

  /** Padding and truncation settings of the tokenizer's files; read on first use. */
  readonly #defaults = (): EncodingDefaults =>
    (this.#encodingDefaults ??= readEncodingDefaults(this.companions, (token) => this.tokenToId(token)));
  #encodingDefaults: EncodingDefaults | undefined;

  /** Encodes texts in parallel on background threads. Returns the ids of each. Throws `ERR_OPTION`. */
  async encodeAll(texts: readonly string[], given: EncodeAllOptions = {}): Promise<Int32Array[]> {
    checkList("encodeAll", "texts", texts, checkText);
    const addSpecialTokens = readSwitch(
      "encodeAll",
      "addSpecialTokens",
      checkKnownOptions("encodeAll", given, ["addSpecialTokens"]),
    );
    const rows = await this.encodeRows(texts, { addSpecialTokens });
    return rows.map(({ ids }) => ids.slice());
  }

  /**
   * @internal Encodes texts in parallel on background threads. Returns the first `limit` ids of each text and the total
   * count, which is an estimate where the rest of a text was not encoded.
   */
  async encodeRows(
    texts: readonly string[],
    {
      addSpecialTokens = true,
      limit = Infinity,
    }: { addSpecialTokens?: boolean | undefined; limit?: number | undefined } = {},
  ): Promise<Encoded[]> {
    const most = Number.isFinite(limit) ? limit : undefined;
    enterCpuUse();
    const all = unwrapResult(await this.#native.encodeAll([...texts], addSpecialTokens, most));
    const end = (i: number): number => (i < 0 ? 0 : (all.ends[i] as number));
    return Array.from(all.totals, (total, i) => ({ ids: all.ids.subarray(end(i - 1), end(i)), total }));
  }

  /** @internal The encoder of conversations. */
  get chat(): ChatEncoder {
    return this;
  }

  /** @internal Encodes a growing text in parts; undefined where the tokenizer needs the whole text. */
  get parts(): PartEncoder | undefined {
    const tokenizer = this.#native;
    if (!tokenizer.knowsSeams()) return undefined;
    const [before, after] = tokenizer.frame();
    return {
      frame: [Int32Array.from(before as number[]), Int32Array.from(after as number[])],
      lastSeam: (text) => tokenizer.lastSeam(text) ?? -1,
      encode: async (part, first) => unwrapResult(await tokenizer.encodePart(part, first)),
    };
  }

  /** Decodes token ids, by default without special tokens. Throws `ERR_OPTION`. */
  decode(ids: ArrayLike<number>, given: DecodeOptions = {}): string {
    const checked = checkIds("decode", "ids", ids);
    return this.#native.decode(
      checked,
      readSwitch("decode", "skipSpecialTokens", checkKnownOptions("decode", given, ["skipSpecialTokens"])),
    );
  }

  /**
   * Decodes ids that follow `context`, one at a time, at constant cost per id. `push` returns the text that an id
   * completes; it is empty for part of a character and for an unknown id. `held` says whether the last ids may be part
   * of a character, and `rest` returns their text if nothing follows.
   *
   * The concatenated pieces equal `decode` of all ids, minus the text of the context. One exception: in a run of
   * single-byte tokens that is not valid UTF-8 as a whole, characters that were complete when they were pushed stay.
   * Throws `ERR_OPTION`.
   */
  decodeStream(context: ArrayLike<number> = [], given: DecodeOptions = {}): DecodeStream {
    const before = checkIds("decodeStream", "context", context);
    const skips = readSwitch(
      "decodeStream",
      "skipSpecialTokens",
      checkKnownOptions("decodeStream", given, ["skipSpecialTokens"]),
    );
    const stream = wrapMethods(this.#native.decodeStream(before, skips));
    return {
      push: (id) => stream.push(checkId("push", "id", id)),
      held: () => stream.held(),
      rest: () => stream.rest(),
    };
  }

  /** @internal The bytes of its tokens; undefined where every token is whole characters. Made on first use. */
  get tokenBytes(): TokenBytes | undefined {
    return (this.#tokenBytes ??= { found: TokenBytes.parse(this.#native.toJson()) }).found;
  }
  #tokenBytes: { found: TokenBytes | undefined } | undefined;

  /** Returns the id of a token, written as in the vocabulary; undefined for an unknown token. Throws `ERR_OPTION`. */
  tokenToId(token: string): number | undefined {
    checkText("tokenToId", "token", token);
    return this.#native.tokenToId(token) ?? undefined;
  }

  /**
   * Renders messages with the model's chat template. Returns ids, or text with `tokenize: false`. The template writes
   * all special tokens; none are added. It comes from `chat_template.jinja` or `tokenizer_config.json` next to the
   * tokenizer's file.
   *
   * Throws `ERR_CHAT_TEMPLATE` where there is no template, or where it rejects the messages, fails, or does not
   * terminate; `ERR_OPTION`.
   */
  applyChatTemplate(messages: readonly Message[], given: ChatTemplateOptions & { tokenize: false }): string;
  applyChatTemplate(
    messages: readonly Message[],
    given?: ChatTemplateOptions & { tokenize?: true | undefined },
  ): Int32Array;
  applyChatTemplate(messages: readonly Message[], given?: ChatTemplateOptions): Int32Array | string;
  applyChatTemplate(messages: readonly Message[], given: ChatTemplateOptions = {}): Int32Array | string {
    const where = "applyChatTemplate";
    const known = checkKnownOptions(where, given, CHAT_OPTIONS);
    const addGenerationPrompt = readSwitch(where, "addGenerationPrompt", known, false);
    const tokenize = readSwitch(where, "tokenize", known);
    const { chatTemplate: givenTemplate, chatTemplateKwargs: variables = {} } = known;
    if (typeof variables !== "object" || variables === null)
      refuse(where, "chatTemplateKwargs", "an object of variables", variables);
    const conversation = checkConversation(where, messages, known.tools);
    const tools = conversation.tools !== undefined;
    const template =
      givenTemplate === undefined
        ? this.findChatTemplate(tools)
        : this.#createTemplate(checkText(where, "chatTemplate", givenTemplate), "the option chatTemplate");
    const text = template.render(conversation, { addGenerationPrompt, variables });
    return tokenize ? this.#native.encode(text, false) : text;
  }

  /**
   * The text of the chat template; undefined where there is none. An assigned template overrides the active adapter's,
   * which overrides the model's. Throws `ERR_FILE_FORMAT`.
   */
  get chatTemplate(): string | undefined {
    return this.#findSource(false)?.text;
  }

  /** Assigns a template; undefined restores the model's. */
  set chatTemplate(source: string | undefined) {
    this.setChatTemplate(source === undefined ? source : checkText("chatTemplate", "its value", source));
  }

  /** @internal Assigns a template; `where` is its name in errors. */
  setChatTemplate(text: string | undefined, where = "the tokenizer's chatTemplate"): void {
    this.#assigned = text === undefined ? undefined : { text, tools: undefined, where };
  }

  /** @internal */
  override assignTemplates(templates: ChatTemplates | undefined): void {
    this.#assigned = templates;
  }

  /** @internal */
  override readAssignedTemplates(): ChatTemplates | undefined {
    return this.#assigned;
  }

  /** @internal */
  override readTemplates(folder: string): ChatTemplates | undefined {
    return readStoredTemplates(openCompanions(folder));
  }

  /** @internal */
  override readCurrentTemplates(): ChatTemplates | undefined {
    return this.#assigned ?? this.adapterTemplates?.() ?? readStoredTemplates(this.companions);
  }

  /** @internal Whether there is a chat template. */
  get hasChatTemplate(): boolean {
    return this.#findSource(false) !== undefined;
  }

  /** @internal Whether the chat template has rendered a conversation. */
  get hasRendered(): boolean {
    return this.#templates.size > 0;
  }

  /** @internal Returns the chat template, or the one for tools. Throws `ERR_CHAT_TEMPLATE` where there is none. */
  findChatTemplate(tools: boolean): ChatTemplate {
    const source = this.#findSource(tools);
    if (source === undefined) {
      const what = "the model has no chat template, which messages need";
      throw new LowrankError("ERR_CHAT_TEMPLATE", `${this.path}: ${what}; ${explainTemplates()}`);
    }
    const known = this.#templates.get(tools);
    if (known?.source.text === source.text && known.source.where === source.where) return known.template;
    const template = this.#createTemplate(source.text, source.where);
    this.#templates.set(tools, { source, template });
    return template;
  }

  #findSource(tools: boolean): TemplateSource | undefined {
    const given = this.#assigned ?? this.adapterTemplates?.();
    if (given === undefined) {
      if (!this.#storedTemplates.has(tools))
        this.#storedTemplates.set(tools, readChatTemplate(this.companions, tools));
      return this.#storedTemplates.get(tools);
    }
    return { text: (tools ? given.tools : undefined) ?? given.text, where: given.where };
  }

  #createTemplate(source: string, where: string): ChatTemplate {
    return new ChatTemplate(source, readSpecialTokens(this.companions), where);
  }

  /**
   * @internal Encodes texts without adding special tokens, in parallel on background threads. Returns the ids and the
   * range of each token in its text. Of a text much longer than `limit` ids it encodes only the beginning, since a long
   * text takes about 150 times its size in memory.
   */
  async encodeWithOffsets(texts: readonly string[], limit = Infinity): Promise<PlacedIds[]> {
    const seam = (text: string): number | undefined => this.#native.lastSeam(text) ?? undefined;
    const size = Math.max(SMALLEST_BEGINNING, CHARACTERS_PER_TOKEN * limit);
    const rows = await this.#encodeBeginnings(texts.map((text) => cutBeginning(text, size, seam)));
    for (const [i, text] of texts.entries())
      for (let longer = 2 * size; ; longer *= 2) {
        const row = rows[i] as PlacedIds;
        if (row.ids.length >= limit || row.encoded === text.length) break;
        [rows[i]] = (await this.#encodeBeginnings([cutBeginning(text, longer, seam)])) as [PlacedIds];
      }
    return rows;
  }

  async #encodeBeginnings(beginnings: readonly Beginning[]): Promise<PlacedIds[]> {
    enterCpuUse();
    const all = unwrapResult(await this.#native.encodeWithOffsets(beginnings.map(({ text }) => text)));
    return beginnings.map(({ text, kept }, i) => {
      const start = all.rows[i - 1] ?? 0;
      let end = all.rows[i] as number;
      if (kept < text.length) while (end > start && (all.ends[end - 1] as number) > kept) end--;
      const sliceRow = (values: Int32Array): Int32Array => values.slice(start, end);
      const offsets = { starts: sliceRow(all.starts), ends: sliceRow(all.ends) };
      return {
        ids: sliceRow(all.ids),
        offsets,
        encoded: kept < text.length ? (offsets.ends.at(-1) ?? 0) : kept,
      };
    });
  }

  /** The number of tokens, added ones included. */
  get vocabSize(): number {
    return this.#native.vocabSize();
  }
}

/** Returns the boolean option `name`, or `otherwise`. */
function readSwitch<N extends string>(
  where: string,
  name: N,
  given: { [K in N]?: boolean | undefined },
  otherwise = true,
): boolean {
  const value: unknown = given[name];
  return value === undefined ? otherwise : checkFlag(where, name, value);
}

/** Throws `ERR_OPTION` for invalid messages or tools. */
function checkConversation(where: string, messages: unknown, tools: unknown): Conversation {
  const refused = (what: string): never => {
    throw new LowrankError("ERR_OPTION", `${where}: ${what}`);
  };
  return { messages: parseMessages(messages, "messages", refused), tools: parseTools(tools, refused) };
}

/** Checks a token id: any 32-bit integer. Ids unknown to the tokenizer have no text. */
function checkId(where: string, name: string, value: unknown): number {
  return checkNumberThat(where, name, value, (id) => Number.isInteger(id) && id === (id | 0), "a token id");
}

function checkIds(where: string, name: string, value: unknown): Int32Array {
  if (value instanceof Int32Array) return value;
  const list = Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView));
  if (!list) return refuse(where, name, "an array of token ids", value);
  return Int32Array.from(value as ArrayLike<number>, (id, i) => checkId(where, `${name}[${i}]`, id));
}
