/** A model's tokenizer, as its `tokenizer.json` has it. */
import { readFileSync } from "node:fs";
import { dirname } from "node:path";

import type * as Binding from "../../native/binding.js";
import { nativePath } from "../archive.js";
import { flag, listOf, numberThat, options, refuse, text as textOf } from "../argument.js";
import { type Conversation, type Message, messagesOf, toolsOf } from "../chat/messages.js";
import { ChatTemplate } from "../chat/template.js";
import type { Offsets } from "../chat/tokens.js";
import type { ChatEncoder, Encoded, Parts } from "../data/encode.js";
import { LowrankError } from "../errors.js";
import { call, guarded, native, settled } from "../native.js";
import { enterCpuUse } from "../scope.js";
import { Beside, inFolder } from "./beside.js";
import { templateAdvice, type ChatTemplates, TemplatedTokenizer } from "../lora/adapter/chat-templates.js";
import {
  readChatTemplate,
  readSpecialTokens,
  type TemplateSource,
  templatesBeside,
} from "./chat-template-files.js";
import { type EncodingDefaults, encodingDefaults } from "./encoding-defaults.js";
import {
  encode,
  encodeBatch,
  type BatchEncoding,
  type BatchPlaces,
  type EncodeBatchOptions,
  type EncodeOptions,
  type Encoding,
} from "./encoding.js";

/** Text of token ids that come one by one. */
export interface DecodeStream {
  /** The text that `id` completes, which may be none. */
  push(id: number): string;
  /** Whether the last ids may be a part of a letter. */
  held(): boolean;
  /** What was held back, once nothing follows: bytes that are no letter are replacement characters. */
  rest(): string;
}

/** Options of `encodeAll`. */
export type EncodeAllOptions = Pick<EncodeOptions, "addSpecialTokens">;

/** What `decode` and `decodeStream` take besides ids. */
export interface DecodeOptions {
  /** Whether special tokens are left out of the text; true. */
  skipSpecialTokens?: boolean | undefined;
}

/** What `applyChatTemplate` takes besides messages. */
export interface ChatTemplateOptions {
  /** Whether the text ends with what begins a turn of the assistant; false. */
  addGenerationPrompt?: boolean | undefined;
  /** JSON schemas of the tools that the assistant may call. */
  tools?: readonly object[] | undefined;
  /** Whether ids are given, or the text; true. */
  tokenize?: boolean | undefined;
  /** The text of another template; the model's own unless given. */
  chatTemplate?: string | undefined;
  /** Variables that the template reads besides, such as `{ enable_thinking: false }`. */
  chatTemplateKwargs?: Readonly<Record<string, unknown>> | undefined;
}

const CHAT_OPTIONS = [
  "addGenerationPrompt",
  "tools",
  "tokenize",
  "chatTemplate",
  "chatTemplateKwargs",
] as const;

/** A model's tokenizer, as its `tokenizer.json` has it. */
export class Tokenizer extends TemplatedTokenizer {
  readonly #native: Binding.Tokenizer;
  /** Templates by whether there are tools, with what each was made of; made when first asked for. */
  readonly #templates = new Map<boolean, { source: TemplateSource; template: ChatTemplate }>();
  #assigned: ChatTemplates | undefined;
  /** The model's own templates by whether there are tools, once read. */
  readonly #own = new Map<boolean, TemplateSource | undefined>();
  /** Whether its `tokenizer.json` is made of another file. */
  readonly #made: boolean;
  /** The file that it was read from. */
  readonly path: string;
  /** @internal The files that belong to it. */
  readonly beside: Beside;

  /** Throws `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`, `ERR_OPTION`. */
  constructor(path: string);
  /** @internal One that was made of the file at `path`, and what `beside` has in place of files. */
  constructor(path: string, made: { own: Binding.Tokenizer; beside: Beside });
  constructor(path: string, made?: { own: Binding.Tokenizer; beside: Beside }) {
    super();
    this.path = textOf("new Tokenizer", "path", path);
    if (made !== undefined && !(made?.beside instanceof Beside))
      refuse("new Tokenizer", "the second argument", "nothing", made);
    this.#native = made?.own ?? guarded(call(() => native().Tokenizer.fromFile(nativePath(path))));
    this.beside = made?.beside ?? inFolder(dirname(path));
    this.#made = made !== undefined;
  }

  /** @internal The text of its `tokenizer.json`, as it was read or made, and what errors call it. */
  source(): { place: string; text: string } {
    const name = "tokenizer.json";
    const made = this.#made ? this.beside.text(name) : undefined;
    if (made !== undefined) return { place: this.beside.place(name), text: made };
    return { place: this.path, text: readFileSync(this.path, "utf8") };
  }

  /**
   * Encodes `text`. Returns its token ids; with `pair`, `offsets: true` or `wordIds: true` an `Encoding`, which also has
   * token types, offsets in UTF-16 units (`text.slice(start, end)`), word ids and sequence ids. `maxLength` cuts to that
   * many tokens, special tokens included.
   *
   * Throws `ERR_OPTION`, among others where `only_first` or `only_second` cannot cut the row to `maxLength`.
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
   * Encodes texts, or pairs of texts, as one batch for `model.forward`: ids, attention mask and token types, i32 [B, T].
   * Rows are padded to the longest unless `padding` says otherwise, on the side and with the token that
   * `tokenizer_config.json` names, and cut where `maxLength` or `truncation` is given. With `offsets: true` or
   * `wordIds: true` the batch also has offsets, word ids and sequence ids by row and token.
   *
   * Throws `ERR_OPTION`, among others for rows of different lengths without padding, a tokenizer without a padding token
   * and a row that cannot be cut to `maxLength`; `ERR_FILE_FORMAT` for a malformed `tokenizer_config.json`.
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

  /** Padding and truncation as the tokenizer's files define them; read once. */
  readonly #defaults = (): EncodingDefaults =>
    (this.#encodingDefaults ??= encodingDefaults(this.beside, (token) => this.tokenToId(token)));
  #encodingDefaults: EncodingDefaults | undefined;

  /** Token ids of each text, in parallel and away from this thread. Throws `ERR_OPTION`. */
  async encodeAll(texts: readonly string[], given: EncodeAllOptions = {}): Promise<Int32Array[]> {
    listOf("encodeAll", "texts", texts, textOf);
    const addSpecialTokens = switched(
      "encodeAll",
      "addSpecialTokens",
      options("encodeAll", given, ["addSpecialTokens"]),
    );
    const rows = await this.encodeRows(texts, { addSpecialTokens });
    return rows.map(({ ids }) => ids.slice());
  }

  /**
   * @internal The first `limit` token ids of each text, of which no more is encoded than they need, and how many it
   * has in all: an estimate where it was not read to its end. In parallel and away from this thread.
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
    const all = settled(await this.#native.encodeAll([...texts], addSpecialTokens, most));
    const end = (i: number): number => (i < 0 ? 0 : (all.ends[i] as number));
    return Array.from(all.totals, (total, i) => ({ ids: all.ids.subarray(end(i - 1), end(i)), total }));
  }

  /** @internal How conversations become texts and ids. */
  get chat(): ChatEncoder {
    return this;
  }

  /** @internal How to encode a running text in parts; undefined where only a whole text has its ids. */
  get parts(): Parts | undefined {
    const own = this.#native;
    if (!own.knowsSeams()) return undefined;
    const [before, after] = own.frame();
    return {
      frame: [Int32Array.from(before as number[]), Int32Array.from(after as number[])],
      lastSeam: (text) => own.lastSeam(text) ?? -1,
      encode: async (part, first) => settled(await own.encodePart(part, first)),
    };
  }

  /** Text of token ids, without special tokens unless told otherwise. Throws `ERR_OPTION`. */
  decode(ids: ArrayLike<number>, given: DecodeOptions = {}): string {
    const checked = idsOf("decode", "ids", ids);
    return this.#native.decode(
      checked,
      switched("decode", "skipSpecialTokens", options("decode", given, ["skipSpecialTokens"])),
    );
  }

  /**
   * Decodes ids as they come after `context`, each at the same cost however many there were. `push` gives the text
   * that an id completes, which may be none: a token may be a part of a letter, and one that the tokenizer does not
   * know has no text. `held` says whether the last ids may be such a part, and `rest` gives what they are if nothing
   * follows. All pieces together are what `decode` makes of all ids after what it makes of the context; but of a run
   * of tokens for single bytes which as a whole is no UTF-8, letters that were whole when they came stay. Throws `ERR_OPTION`.
   */
  decodeStream(context: ArrayLike<number> = [], given: DecodeOptions = {}): DecodeStream {
    const before = idsOf("decodeStream", "context", context);
    const skips = switched(
      "decodeStream",
      "skipSpecialTokens",
      options("decodeStream", given, ["skipSpecialTokens"]),
    );
    const stream = guarded(this.#native.decodeStream(before, skips));
    return {
      push: (id) => stream.push(idOf("push", "id", id)),
      held: () => stream.held(),
      rest: () => stream.rest(),
    };
  }

  /** The id of a token, as the vocabulary spells it; undefined where it has none. Throws `ERR_OPTION`. */
  tokenToId(token: string): number | undefined {
    textOf("tokenToId", "token", token);
    return this.#native.tokenToId(token) ?? undefined;
  }

  /**
   * The text that the model's chat template makes of messages, as ids, or with `tokenize: false` as it is. Special tokens
   * are those that the template writes; none are added. The template is that of `chat_template.jinja` or
   * `tokenizer_config.json` beside the tokenizer's file.
   *
   * Throws `ERR_CHAT_TEMPLATE` where there is no template, and for one that refuses the messages, fails, or does not come
   * to an end; `ERR_OPTION`.
   */
  applyChatTemplate(messages: readonly Message[], given: ChatTemplateOptions & { tokenize: false }): string;
  applyChatTemplate(
    messages: readonly Message[],
    given?: ChatTemplateOptions & { tokenize?: true | undefined },
  ): Int32Array;
  applyChatTemplate(messages: readonly Message[], given?: ChatTemplateOptions): Int32Array | string;
  applyChatTemplate(messages: readonly Message[], given: ChatTemplateOptions = {}): Int32Array | string {
    const where = "applyChatTemplate";
    const known = options(where, given, CHAT_OPTIONS);
    const addGenerationPrompt = switched(where, "addGenerationPrompt", known, false);
    const tokenize = switched(where, "tokenize", known);
    const { chatTemplate: own, chatTemplateKwargs: variables = {} } = known;
    if (typeof variables !== "object" || variables === null)
      refuse(where, "chatTemplateKwargs", "an object of variables", variables);
    const conversation = conversationOf(where, messages, known.tools);
    const tools = conversation.tools !== undefined;
    const template =
      own === undefined
        ? this.chatTemplateFor(tools)
        : this.#template(textOf(where, "chatTemplate", own), "the option chatTemplate");
    const text = template.render(conversation, { addGenerationPrompt, variables });
    return tokenize ? this.#native.encode(text, false) : text;
  }

  /**
   * The text of the chat template; undefined where the model has none. An assigned template overrides the active
   * adapter's, which overrides the model's own.
   * Throws `ERR_FILE_FORMAT`.
   */
  get chatTemplate(): string | undefined {
    return this.#sourceFor(false)?.text;
  }

  /** Assigns a template; undefined is the model's own. */
  set chatTemplate(source: string | undefined) {
    this.setChatTemplate(source === undefined ? source : textOf("chatTemplate", "its value", source));
  }

  /** @internal Assigns a template; `where` is what errors call it. */
  setChatTemplate(text: string | undefined, where = "the tokenizer's chatTemplate"): void {
    this.#assigned = text === undefined ? undefined : { text, tools: undefined, where };
  }

  /** @internal */
  override assignTemplates(templates: ChatTemplates | undefined): void {
    this.#assigned = templates;
  }

  /** @internal */
  override assignedTemplates(): ChatTemplates | undefined {
    return this.#assigned;
  }

  /** @internal */
  override templatesIn(folder: string): ChatTemplates | undefined {
    return templatesBeside(inFolder(folder));
  }

  /** @internal */
  override currentTemplates(): ChatTemplates | undefined {
    return this.#assigned ?? this.adapterTemplates?.() ?? templatesBeside(this.beside);
  }

  /** @internal Whether a conversation was rendered by the chat template. */
  get hasRendered(): boolean {
    return this.#templates.size > 0;
  }

  /** @internal The chat template, or the one for tools. Throws `ERR_CHAT_TEMPLATE` where there is none. */
  chatTemplateFor(tools: boolean): ChatTemplate {
    const source = this.#sourceFor(tools);
    if (source === undefined) {
      const what = "the model has no chat template, which messages are written by";
      throw new LowrankError("ERR_CHAT_TEMPLATE", `${this.path}: ${what}; ${templateAdvice()}`);
    }
    const known = this.#templates.get(tools);
    if (known?.source.text === source.text && known.source.where === source.where) return known.template;
    const template = this.#template(source.text, source.where);
    this.#templates.set(tools, { source, template });
    return template;
  }

  #sourceFor(tools: boolean): TemplateSource | undefined {
    const given = this.#assigned ?? this.adapterTemplates?.();
    if (given === undefined) {
      if (!this.#own.has(tools)) this.#own.set(tools, readChatTemplate(this.beside, tools));
      return this.#own.get(tools);
    }
    return { text: (tools ? given.tools : undefined) ?? given.text, where: given.where };
  }

  #template(source: string, where: string): ChatTemplate {
    return new ChatTemplate(source, readSpecialTokens(this.beside), where);
  }

  /**
   * @internal The ids of texts without special tokens added, and where in the text each token is. In parallel and away
   * from this thread.
   */
  async encodeWithOffsets(texts: readonly string[]): Promise<{ ids: Int32Array; offsets: Offsets }[]> {
    enterCpuUse();
    const all = settled(await this.#native.encodeWithOffsets([...texts]));
    return Array.from(all.rows, (end, i) => {
      const of = (values: Int32Array): Int32Array => values.slice(all.rows[i - 1] ?? 0, end);
      return { ids: of(all.ids), offsets: { starts: of(all.starts), ends: of(all.ends) } };
    });
  }

  /** How many tokens there are, added ones among them. */
  get vocabSize(): number {
    return this.#native.vocabSize();
  }
}

/** The option `name`, `otherwise` unless given. */
function switched<N extends string>(
  where: string,
  name: N,
  given: { [K in N]?: boolean | undefined },
  otherwise = true,
): boolean {
  const value: unknown = given[name];
  return value === undefined ? otherwise : flag(where, name, value);
}

/** Throws `ERR_OPTION` for messages or tools that are none. */
function conversationOf(where: string, messages: unknown, tools: unknown): Conversation {
  const refused = (what: string): never => {
    throw new LowrankError("ERR_OPTION", `${where}: ${what}`);
  };
  return { messages: messagesOf(messages, "messages", refused), tools: toolsOf(tools, refused) };
}

/** A token id: what an Int32Array can hold. One that no tokenizer knows has no text. */
function idOf(where: string, name: string, value: unknown): number {
  return numberThat(where, name, value, (id) => Number.isInteger(id) && id === (id | 0), "a token id");
}

function idsOf(where: string, name: string, value: unknown): Int32Array {
  if (value instanceof Int32Array) return value;
  const list = Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView));
  if (!list) return refuse(where, name, "an array of token ids", value);
  return Int32Array.from(value as ArrayLike<number>, (id, i) => idOf(where, `${name}[${i}]`, id));
}
