/** The test that follows the recommendation of each message. */

/** A message of the sources, and the test that follows it; undefined if it only names an option. */
export type Followed = readonly [says: RegExp, test: string | undefined];

const HERE = "test/recommendations/recommendations.test.ts: ";
const RUNS = "test/recommendations/runs.test.ts: ";
const COMMANDS = "test/recommendations/commands.test.ts: ";

/**
 * Each message that names a command, a flag or an option. A test is named by its file, and its title or a part of
 * it.
 */
export const FOLLOWED: readonly Followed[] = [
  [
    /^give --config FILE: a YAML or JSON file with options and a space of values$/,
    "test/cli/sweep.test.ts: a missing file, no file, and a folder with another sweep",
  ],
  [
    /alone would need … on …, and …; give <gradientCheckpointing>|or the number of random draws with <trials>$/,
    "test/train/sweep-options.test.ts: the remedies of the messages help",
  ],
  [
    /^sweep: the trials …; free memory, or give a smaller storage with <quantize>$/,
    "test/train/offload-memory.test.ts: gpu: offloaded weights that the system's memory cannot keep are refused before they are read",
  ],
  [
    /before any comparison; give a smaller number, or leave <halving> out$/,
    "test/train/sweep-options.test.ts: the remedies of the messages help",
  ],
  [
    /give <evalData> or <evalSplit> to compare them on rows|give <evalData> to compare them on the same rows$/,
    "test/train/sweep-options.test.ts: the remedies of the messages help",
  ],
  [/^sweep takes <option>$|^<halving> differs$|^<option> of … was …, and is … now$/, undefined],
  [/<logitBias> has the token …; this model's tokens are 0 to …$/, undefined],
  [
    /give one share for each of several devices$/,
    "test/train/devices.test.ts: a device without rows is refused",
  ],
  [
    /names … among several devices; name each as cpu, gpu or gpu:N$|; name each device once$/,
    "test/train/devices.test.ts: a device without rows is refused",
  ],
  [
    /raise <batchSize> or <gradientAccumulation>, or …$|leave it out, or give other <deviceShares>$/,
    "test/train/devices.test.ts: a device without rows is refused",
  ],
  [
    /leave it out, or give it a larger share with <deviceShares>$/,
    "test/train/devices.test.ts: a device without rows is refused",
  ],
  [
    /run lowrank doctor for a report, or choose the GPU with device gpu$/,
    "test/diagnose/auto.test.ts: doctor tests again, and auto follows the result",
  ],
  [/^--chat-template-file …$/, undefined],
  [
    /^<option> has no effect with the optimizer|^finetune: <option> is null; leave it out/,
    `${RUNS}an option that the optimizer does not have`,
  ],
  [
    /name another --output/,
    "test/cli/predict.test.ts: an output file is complete or absent, and is replaced only with --yes",
  ],
  [/or with --adapter one that was trained/, `${COMMANDS}requirements of predict`],
  [/^<resume> continues the run that <overwrite>/, `${HERE}--resume and --yes`],
  [/^<data> and <evalData> cannot both be standard input$|^…; give <evalSplit>$/, `${HERE}standard input`],
  [/has no name to go by: give <dataFormat>/, `${HERE}standard input`],
  [
    /^give more rows, or held-out rows with <evalData>$/,
    "test/train/classification.test.ts: a held-out share of classes with one row each",
  ],
  [/needs <data> FILE to train on$/, `${HERE}options that need others`],
  [/^<evalEvery> needs <evalData> or <evalSplit>$/, `${HERE}options that need others`],
  [/^<patience> counts evaluations: it needs <evalEvery>$/, `${HERE}options that need others`],
  [/^predict needs --|^--output is the file of --data/, `${COMMANDS}requirements of predict`],
  [/^--data: …; give --data-format …$/, `${COMMANDS}requirements of predict`],
  [/^generate needs --prompt TEXT or --messages FILE$/, `${HERE}requirements of generate`],
  [/^--chat-template has no effect: --prompt/, `${HERE}requirements of generate`],
  [
    /at --temperature 0 the most likely token is taken; give a --temperature above 0$/,
    "test/cli/without-effect.test.ts: other commands report them",
  ],
  [
    /does not say its model: give --model$|which is not here…: give --model$/,
    `${HERE}an adapter with an unknown or missing model`,
  ],
  [/^give the model with <model>$/, `${HERE}an adapter with an unknown or missing model`],
  [/^with --packing … of … tokens, $/, `${HERE}packing`],
  [/lowrank finetune --resume …$/, "test/dashboard/page.test.ts: the page of a run whose process is killed"],
  [
    /^, or train on all tokens with <trainOn>$|^, or raise <maxLength> up to the model's …$|^shorten the prompts……$/,
    `${HERE}rows with nothing to train on`,
  ],
  [
    /^a larger <maxLength>, up to the model's …, keeps …$|the model reads at most … tokens, so split or shorten such rows$/,
    `${HERE}rows with nothing to train on, and truncated rows`,
  ],
  [/use a template for tools with <chatTemplate>$/, `${HERE}tools that a template ignores`],
  [
    /^<promptFormat> trains the plain texts$|is an array of messages, which <promptFormat> raw does not write/,
    `${HERE}rows of prompt and completion with a chat template`,
  ],
  [/^give one with <chatTemplate> FILE$/, `${HERE}a model without a chat template`],
  [
    /^…: … \(…\), and offline mode uses no server; download it once without <offline>/,
    "test/hub/load.test.ts: the command line: a model by its name, and by the base model of an adapter",
  ],
  [
    /"peft" is PEFT's table by family.*name layers, or all-linear/,
    `${HERE}a model family that PEFT's table lacks`,
  ],
  [
    /lower the learning rate .*<optimizer\.lr>\) or lengthen the warm-up \(<warmup>\)$/,
    `${RUNS}a run that diverges`,
  ],
  [/training had diverged before its first checkpoint/, `${RUNS}a run that diverges`],
  [/give it more with <memory>$|<memory> chooses them automatically$/, `${RUNS}a run that does not fit`],
  [/^start the run again in the same folder with <overwrite>$/, `${RUNS}a damaged checkpoint`],
  [
    /the last intact one is …; continue from it with <resume>$/,
    "test/train/resume.test.ts: a damaged checkpoint names the sound one",
  ],
  [/is of another run; continue from it with <resume>$/, `${RUNS}a run without a checkpoint`],
  [/^; … is kept; continue from it with <resume>$/, "test/cli/ends.test.ts: a disk that fills up"],
  [
    /^continue it with <resume>, $|replace it with <overwrite>, or choose another folder with <output>$/,
    `${HERE}a folder that contains a run`,
  ],
  [/moved or is gone; pass its new path with <option>/, `${HERE}data that has moved`],
  [/give the same again with …<option> -$/, `${HERE}standard input`],
  [
    /given rows in memory by <option>; give the same rows again$/,
    "test/train/speech.test.ts: a run that is stopped and resumed ends with the same bits",
  ],
  [/^<r> is above the width/, `${HERE}a rank above the width`],
  [
    /^…: is the folder of the adapter that the run starts from/,
    "test/train/start-adapter.test.ts: the output is not the adapter's own folder",
  ],
  [
    /^--adapter …: the base has this name; give the base another with --name$|give a folder, as in --adapter …=DIR$/,
    `${COMMANDS}requirements of serve`,
  ],
  // These list the valid values of an option, and recommend no other option.
  [
    /^(…|inject|finetune): <option> (is|must be) |^<option>: "…" |^<option> names standard input twice/,
    undefined,
  ],
  [/^give one of <option> and <option>, not both$/, `${HERE}options that need others`],
  [/^<option> has no effect: |^<warmup> reaches to the last/, undefined],
  [/^<[a-zA-Z.]+>(:? …| is |:? must | was |: there is no layer|: …|: ……)/, undefined],
  [/^--(name|adapter|allow-origin) ?…?:? (must|its name|two adapters)/, undefined],
  [
    /^finetune: <adapter>$|^give <model>$/,
    "test/train/start-adapter.test.ts: a folder without an adapter, or with an unsuitable one, is refused",
  ],
  // Not lowrank's own commands, but commands of npm and llama.cpp, and options of bundlers.
  [/^join them first \(llama-gguf-split/, undefined],
  [
    /^lowrank was bundled|^esbuild --external/,
    "test/bundlers.test.ts: esbuild: a bundle with the package as external runs, and one that contains it says so",
  ],
  [/there is no binary of lowrank for/, undefined],
  [
    /with --omit=optional/,
    "test/recommendations/install.test.ts: the binary's package is installed by the command that its absence recommends",
  ],
  [
    /npm install --no-save/,
    "test/recommendations/install.test.ts: a damaged binary is replaced as its message recommends",
  ],
  [/use the lowrank that wrote it$/, undefined],
  [/^<pad>$/, undefined],
];

const REFUSED = "test/recommendations/refusals.test.ts: ";
const OWN = "test/recommendations/own-layers.test.ts: ";
const MERGED =
  "test/recommendations/gguf.test.ts: an adapter that llama.cpp does not support is merged into a GGUF file: ";
const CONTRADICTED = "test/recommendations/recommendations.test.ts: refused by finetune, with what to do: ";

/** The same for refusals whose `instead` names an option or a command, by section and key. */
export const REFUSALS_FOLLOWED: Readonly<Record<string, string>> = {
  "Sweeps: watchedSweep": "test/cli/sweep.test.ts: a grid of eight trials ends with a table, the best first",
  "Adapters: biasWithStart": `${REFUSED}initialisations of adapters`,
  "Adapters: evaWithoutData": `${REFUSED}initialisations of adapters`,
  "Adapters: evaWithoutLinears": `${REFUSED}initialisations of adapters`,
  "Adapters: evaEnding": `${REFUSED}a layer to which EVA gives no rank`,
  "Adapters: pissaScaling": `${REFUSED}initialisations of adapters`,
  "Adapters: startRank": `${REFUSED}initialisations of adapters`,
  "Adapters: groupedDora": `${REFUSED}a grouped convolution`,
  "Adapters: tiedAdapter": `${REFUSED}a tied embedding`,
  "Adapters: ownFrozen": `${OWN}a layer is changed as its refusal says, or excluded: ownFrozen`,
  "Adapters: ownWeight": `${OWN}a layer is changed as its refusal says, or excluded: ownWeight`,
  "Adapters: ownName": `${OWN}a layer is changed as its refusal says, or excluded: ownName`,
  "Adapters: ownForwardProperty": `${OWN}a layer is changed as its refusal says, or excluded: ownForwardProperty`,
  "Adapters: ownForwardDropout": `${OWN}a layer is changed as its refusal says, or excluded: ownForwardDropout`,
  "Adapters: ownForwardDtype": `${OWN}a layer is changed as its refusal says, or excluded: ownForwardDtype`,
  "Adapters: ownForwardAsync": `${OWN}a forward is changed as its refusal says, or its layer excluded: ownForwardAsync`,
  "Adapters: ownForwardAssigns": `${OWN}a forward is changed as its refusal says, or its layer excluded: ownForwardAssigns`,
  "Adapters: ownCopy": `${OWN}a layer with adapters is copied after they are removed`,
  "Adapters: attention": `${REFUSED}attention: without the option, or excluded`,
  "Adapters in files: loralibAlpha":
    "test/lora/formats.test.ts: on cpu a conversion to loralib's format and back gives the same model",
  "Adapters in files: loralibSlices":
    "test/lora/loralib-layers.test.ts: a merged linear layer of loralib's is read as the equal plain one",
  "Adapters in files: kohyaNetworks": `${REFUSED}a kohya file with several networks: one of them by prefix`,
  ...Object.fromEntries(
    ["dora", "biases", "factorBiases", "modulesToSave", "tokens", "tied", "layers"].map((key) => [
      `GGUF: ${key}`,
      `${MERGED}${key}`,
    ]),
  ),
  ...Object.fromEntries(
    ["sentenceModules", "sentencePooling"].map((key) => [
      `Models: ${key}`,
      "test/parity/sentences.test.ts: modules and poolings that are not supported are refused by name",
    ]),
  ),
  "Quantised weights: merged": `${REFUSED}quantised weights`,
  "Quantised weights: dora": `${CONTRADICTED}DoRA over blocks`,
  "Quantised weights: start": `${CONTRADICTED}a start over blocks`,
  "Quantised weights: saved": `${REFUSED}quantised weights`,
  "Quantised weights: quantizedFile": `${REFUSED}quantised weights`,
  "Runs: loraOfAdapter": `${RUNS}options that contradict an adapter's`,
  "Runs: adapterWithoutHead": `${RUNS}an adapter without a head`,
  "Runs: packedLabels": `${REFUSED}rows with labels`,
  "Runs: packedSpeech": `${RUNS}rows of speech`,
  "Runs: bothStandardInput": `${HERE}standard input`,
  "Runs: offloadWithStart":
    "test/train/offload.test.ts: offloading has no effect on the cpu, and is refused where it cannot save memory",
  "Runs: quantizeOfLoaded": `${REFUSED}quantised weights`,
  "The command line: deviceOfList": "test/tuning.test.ts: devices --tune tries the usual shapes",
  "The command line: logprobsWithoutJson": `${REFUSED}options of commands`,
  "The command line: blocksOutsideGguf": `${REFUSED}options of commands`,
  "The command line: revisionWithoutModel": `${REFUSED}options of commands`,
};
