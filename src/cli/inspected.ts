/** Formats the result of `inspect`. */
import pc from "picocolors";
import type { InspectedAdapter } from "../inspect/adapter.js";
import type { InspectedData } from "../inspect/data.js";
import type { Inspected } from "../inspect/inspect.js";
import type { InspectedModel } from "../inspect/model.js";
import { escapeAll, escapeLines } from "./terminal/escaped.js";
import { formatSize, formatCount, formatPercent, formatPlural, shorten } from "./terminal/format.js";

export function formatInspected(given: Inspected): string[] {
  const found = escapeAll(given);
  if (found.kind === "model") return formatModel(found);
  if (found.kind === "adapter") return formatAdapter(found);
  // The text of rows keeps its newlines.
  const { first } = given as InspectedData;
  return formatData({ ...found, first: escapeAll(first, escapeLines) });
}

/** Whether a model can be loaded, an adapter can be loaded and fits, or data has rows to train on. */
export function isUsable(found: Inspected): boolean {
  if (found.kind === "model") return found.fits;
  if (found.kind === "adapter") return found.problems.length === 0 && found.fit?.fits !== false;
  return found.kept > 0;
}

/** Formats names and values, one pair per line. */
function formatTable(rows: readonly (readonly [name: string, value: string | 0 | undefined])[]): string[] {
  return rows.flatMap(([name, value]) => (value ? [`  ${name.padEnd(12)} ${value}`] : []));
}

function describeWeights({ parameters, bytes: size, dtypes }: InspectedModel | InspectedAdapter): string {
  const kinds = Object.entries(dtypes);
  const stored = kinds.map(([dtype, count]) => (kinds.length === 1 ? dtype : `${shorten(count)} ${dtype}`));
  return `${shorten(parameters)} (${formatCount(parameters)}) in ${stored.join(", ") || "nothing"}, ${formatSize(size)}`;
}

function formatModel(found: InspectedModel): string[] {
  const { heads, keyValueHeads, headDim, tokenizer, targets } = found;
  const formatTarget = ({ name, layers, features, allLinear }: InspectedModel["targets"][number]): string =>
    `${name}${allLinear ? "" : " (not by all-linear)"} × ${formatCount(layers)}${features === undefined ? "" : ` [${features.join(" → ")}]`}`;
  return [
    `${found.source}: a model`,
    ...formatTable([
      ["family", [found.family, found.architecture].filter(Boolean).join(", ") || undefined],
      ["loaded as", found.loadedAs],
      ["commit", found.revision],
      ["parameters", describeWeights(found)],
      ["layers", found.layers && `${found.layers} of ${formatCount(found.hiddenSize ?? 0)} channels`],
      [
        "heads",
        heads === undefined ? undefined : `${heads} of ${headDim}, ${keyValueHeads} of keys and values`,
      ],
      ["context", found.context && formatPlural(found.context, "token")],
      [
        "vocabulary",
        found.vocabulary && `${formatCount(found.vocabulary)}${found.tied ? ", tied to the head" : ""}`,
      ],
      ["classes", found.labels?.join(", ")],
      [
        "tokenizer",
        tokenizer === undefined
          ? "none"
          : `${formatPlural(tokenizer.vocabulary, "token")}, ${tokenizer.chatTemplate ? "with" : "without"} a chat template`,
      ],
      ["targets", targets.length === 0 ? undefined : targets.map(formatTarget).join(", ")],
    ] as const),
    ...found.notices.map((text) => `note: ${text}`),
    found.fits ? "It can be loaded." : "It cannot be loaded:",
    ...found.problems.map((text) => `  ${text}`),
  ];
}

/** Lists the first names of a list and the number of the rest. */
function listFew(names: readonly string[], limit = 10): string {
  const rest = names.length - limit;
  return names.slice(0, limit).join(", ") + (rest > 0 ? ` and ${formatCount(rest)} more` : "");
}

/** Describes the base model of an adapter and its location. */
function describeBase({ baseModel, basePath, baseSought, revision }: InspectedAdapter): string | undefined {
  if (baseModel === undefined) return undefined;
  const name = [baseModel, revision].filter(Boolean).join("@");
  if (baseSought !== undefined)
    return baseSought.length === 1
      ? `${name}, not found`
      : `${name}, found neither at ${baseSought.join(" nor at ")}`;
  return basePath === undefined || basePath === baseModel ? name : `${name}, at ${basePath}`;
}

function formatAdapter(found: InspectedAdapter): string[] {
  const { options = {}, ranks, fit } = found;
  const spoken = ranks.map(
    ({ rank, alpha, layers }) => `${rank} (alpha ${alpha ?? "unknown"}) × ${formatPlural(layers, "layer")}`,
  );
  const patterns = { ...options.rankPattern, ...options.alphaPattern };
  const formatList = (value: unknown): string | undefined =>
    value === undefined ? undefined : typeof value === "string" ? value : listFew(value as string[]);
  const marks = [
    options.useRslora && "rsLoRA",
    options.useDora && "DoRA",
    options.loraBias && "a bias in the adapter",
    options.bias !== undefined && options.bias !== "none" && `biases: ${options.bias}`,
  ].filter((part) => typeof part === "string");
  return [
    `${found.path}: an adapter, ${{ peft: "a folder of PEFT's", kohya: "a file of kohya's", loralib: "a file of loralib's" }[found.format]}`,
    ...formatTable([
      ["made for", describeBase(found)],
      ["rank", spoken.join(", ") || undefined],
      ["targets", found.targets.length === 0 ? undefined : listFew(found.targets)],
      ["given as", formatList(options.targetModules)],
      ["patterns", Object.keys(patterns).length === 0 ? undefined : listFew(Object.keys(patterns))],
      ["besides", marks.length === 0 ? undefined : marks.join(", ")],
      ["whole", formatList(options.modulesToSave)],
      [
        "start",
        found.start ?? (options.initLoraWeights === undefined ? undefined : String(options.initLoraWeights)),
      ],
      ["networks", found.networks?.join(", ")],
      ["parameters", describeWeights(found)],
    ] as const),
    ...(found.problems.length > 0
      ? ["It cannot be loaded:", ...found.problems.map((text) => `  ${text}`)]
      : []),
    ...(fit === undefined ? [] : formatFit(fit, found.problems)),
  ];
}

function formatFit(
  { model, fits, matched, unexpected, missing, misshapen, problems }: NonNullable<InspectedAdapter["fit"]>,
  mismatches: readonly string[],
): string[] {
  if (fits) return [`It fits ${model}: ${formatPlural(matched, "tensor")}.`];
  const formatShape = (shape: readonly number[]): string => `[${shape.join(", ")}]`;
  return [
    `It does not fit ${model}; ${formatPlural(matched, "tensor")} would.`,
    ...problems.filter((text) => !mismatches.includes(text)).map((text) => `  ${text}`),
    ...unexpected.map((key) => `  not of this model: ${key}`),
    ...missing.map((key) => `  missing: ${key}`),
    ...misshapen.map(
      ({ key, shape, expected }) =>
        `  ${key} is ${formatShape(shape)}, this model takes ${formatShape(expected)}`,
    ),
  ];
}

/** Marks of trained text without colours. */
const BRACKETS = ["⟦", "⟧"] as const;
/** Characters of the longest bar. */
const BAR = 40;

/** The maximum number of classes to list; of more classes, only the first and the last are listed. */
const MOST_CLASSES = 20;

function formatClasses(classes: NonNullable<InspectedData["classes"]>): string {
  const counts = [...classes]
    .sort((a, b) => b.rows - a.rows)
    .map(({ label, rows }) => `${label} ${formatCount(rows)}`);
  const shown =
    counts.length <= MOST_CLASSES
      ? counts
      : [
          ...counts.slice(0, MOST_CLASSES / 2),
          `… ${formatCount(counts.length - MOST_CLASSES)} more …`,
          ...counts.slice(-MOST_CLASSES / 2),
        ];
  return `${formatCount(classes.length)} classes, rows of each: ${shown.join(", ")}`;
}

function formatData(found: InspectedData): string[] {
  const { file, rows, kept, cut, dropped, tokens, trainedTokens, maxLength, lengths, notices } = found;
  const colours = process.stdout.isTTY === true && pc.isColorSupported;
  const mark = (text: string): string => (colours ? pc.green(text) : BRACKETS.join(text));
  const all: string[] = [];
  for (const [i, parts] of found.first.entries()) {
    all.push(`row ${i + 1}, trained tokens ${colours ? "in green" : `in ${BRACKETS.join("")}`}:`);
    all.push(parts.map(({ text, trained }) => (trained ? mark(text) : text)).join(""), "");
  }
  const share = tokens === 0 ? 0 : trainedTokens / tokens;
  all.push(
    `${file}: ${formatPlural(rows, "row")}, ${formatCount(kept)} trained on, ${formatCount(cut)} cut, ${formatCount(dropped)} left out`,
    `${formatPlural(tokens, "token")}, ${formatCount(trainedTokens)} of them trained on (${formatPercent(share)}); at most ${maxLength} a row`,
  );
  if (found.classes !== undefined) all.push(formatClasses(found.classes));
  const most = Math.max(1, ...lengths.map((bin) => bin.rows));
  const formatRange = ({ from, to }: { from: number; to: number }): string => `${from}–${to}`;
  const width = Math.max(0, ...lengths.map((bin) => formatRange(bin).length));
  for (const bin of lengths)
    all.push(
      `  ${formatRange(bin).padStart(width)} tokens  ${"█".repeat(Math.ceil((BAR * bin.rows) / most))} ${formatCount(bin.rows)}`,
    );
  const { packing } = found;
  if (packing !== undefined)
    all.push(
      `with --packing ${formatPlural(packing.sequences, "sequence")} of ${maxLength} tokens, ` +
        `${packing.rowsPerSequence.toFixed(1)} rows in each and at most ${formatCount(packing.mostRows)}: ` +
        `${formatPercent(packing.padding)} is padding, and ${formatPercent(packing.paddingUnpacked)} where each row is filled up`,
    );
  return [...all, ...notices];
}
