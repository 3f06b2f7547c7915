/** Which test follows the recommendation of a message. */

/** A message of the sources, and the test that does what it says; none where it only names an option. */
export type Followed = readonly [says: RegExp, test: string | undefined];

const HERE = "test/recommendations/recommendations.test.ts: ";

/** For each message that names a command, a flag or an option. A test is its file, and its title or a part of it. */
export const FOLLOWED: readonly Followed[] = [
  [/^<option> has no effect with the optimizer|^--chat-template-file …$/, undefined],
  [/name another --output/, "test/cli/predict.test.ts: a file is there whole or not at all, and is replaced"],
  [/or with --adapter one that was trained/, "test/cli/predict.test.ts: "],
  [/^<resume> goes on with what <overwrite>/, `${HERE}--resume and --yes`],
  [/^<data> and <evalData> cannot both be standard input$|^…; give <evalSplit>$/, `${HERE}standard input`],
  [/has no name to go by: give <dataFormat>/, `${HERE}standard input`],
  [/needs <data> FILE to train on$/, `${HERE}options that need others`],
  [/^<evalEvery> needs <evalData> or <evalSplit>$/, `${HERE}options that need others`],
  [/^<patience> counts evaluations: it needs <evalEvery>$/, `${HERE}options that need others`],
  [/^predict needs --|^--output is the file of --data/, "test/cli/predict.test.ts: "],
  [
    /^--data: …; give --data-format txt or jsonl$/,
    "test/cli/predict.test.ts: lines of text, texts of the command line",
  ],
  [/^generate needs --prompt TEXT or --messages FILE$/, `${HERE}what generate needs`],
  [/^--chat-template has no effect: --prompt/, `${HERE}what generate needs`],
  [
    /at --temperature 0 the likeliest token is taken; give a --temperature above 0$/,
    "test/cli/without-effect.test.ts: other commands report them",
  ],
  [
    /does not say its model: give --model$|which is not here…: give --model$/,
    `${HERE}an adapter whose model is not known`,
  ],
  [/^give the model with <model>$/, `${HERE}an adapter whose model is not known`],
  [/^with --packing … of … tokens, $/, `${HERE}packing`],
  [/lowrank finetune --resume …$/, "test/dashboard/page.test.ts: the page of a run whose process is killed"],
  [
    /^, or train on all tokens with <trainOn>$|^shorten the prompts, or raise <maxLength>/,
    `${HERE}rows with nothing to train on`,
  ],
  [/^a larger <maxLength> keeps more of them$/, `${HERE}rows that are cut`],
  [/a larger <maxLength> keeps them$/, `${HERE}conversations that are too long`],
  [/use a template for tools with <chatTemplate>$/, `${HERE}tools that a template ignores`],
  [/^give one with <chatTemplate> FILE$/, `${HERE}a model without a chat template`],
  [
    /^…: … \(…\), and no server is asked offline; download it once without <offline>/,
    "test/hub/load.test.ts: the command line: a model by its name",
  ],
  [/"peft" is PEFT's table by family.*name layers, or all-linear/, `${HERE}peft's table`],
  [
    /lower the learning rate .*<optimizer\.lr>\) or lengthen the warm-up \(<warmup>\)$/,
    "test/train/divergence.test.ts: healthy losses are not reported",
  ],
  [
    /training had diverged before its first checkpoint/,
    "test/train/divergence.test.ts: pruning keeps the last good checkpoint",
  ],
  [
    /give it more by <memory>$|<memory> chooses by itself$/,
    "test/train/memory-option.test.ts: a run that cannot fit is refused",
  ],
  [/no earlier checkpoint is intact; start the run again/, "test/train/random-runs.test.ts: "],
  [
    /the last intact one is …; continue from it with <resume>$/,
    "test/train/resume.test.ts: a damaged checkpoint names the sound one",
  ],
  [
    /is of another; continue from it with <resume>$/,
    "test/train/resume.test.ts: the newest is that of the run",
  ],
  [/^; … is kept; continue from it with <resume>$/, "test/train/random-runs.test.ts: "],
  [
    /^continue it with <resume>, $|replace it with <overwrite>, or choose another folder with <output>$/,
    `${HERE}a folder that contains a run`,
  ],
  [/give more steps, or resume from an earlier checkpoint$/, `${HERE}more steps`],
  [/moved or is gone; pass its new path with <option>/, `${HERE}data that has moved`],
  [/give the same again with …<option> -$/, `${HERE}standard input`],
  [/given rows in memory by <option>; give the same rows again$/, "test/train/speech.test.ts: "],
  [/^<r> is above the width/, `${HERE}a rank above the width`],
  [
    /^…: is the folder of the adapter that the run starts from/,
    "test/train/start-adapter.test.ts: the output is not the adapter's own folder",
  ],
  [
    /^--adapter …: the base has this name; give the base another with --name$|give a folder, as in --adapter …=DIR$/,
    "test/cli/serve.test.ts: two adapters by name over one base",
  ],
  // These say what an option may be, and recommend no other.
  [/^(…|inject|finetune): <option> is |^<option>: "…" |^<option> names standard input twice/, undefined],
  [/^give one of <option> and <option>, not both$/, `${HERE}options that need others`],
  [/^<option> has no effect: |^<warmup> reaches to the last/, undefined],
  [/^<[a-zA-Z.]+>(:? …| is |:? must | was |: there is no layer|: …|: ……)/, undefined],
  [/^--(name|adapter|allow-origin) ?…?:? (must|its name|two adapters)/, undefined],
  [/^finetune: <adapter>$|^give <model>$/, "test/train/start-adapter.test.ts: what is no adapter says so"],
  // Not lowrank's own commands: npm's and llama.cpp's, and what bundlers are told.
  [/^join them first \(llama-gguf-split/, undefined],
  [
    /^lowrank was taken into a bundle|^esbuild --external|there is no binary of lowrank for|with --omit=optional|npm install --no-save/,
    "test/native-load.test.ts: ",
  ],
  [/look at it with the lowrank that wrote it$/, undefined],
  [/^<pad>$/, undefined],
];

const REFUSED = "test/recommendations/refusals.test.ts: ";

/** The same for refusals whose `instead` names an option or a command, by the section and the key. */
export const REFUSALS_FOLLOWED: Readonly<Record<string, string>> = {
  "Adapters: biasWithStart": `${REFUSED}starts of adapters`,
  "Adapters: evaWithoutData": `${REFUSED}starts of adapters`,
  "Adapters: evaWithoutLinears": `${REFUSED}starts of adapters`,
  "Adapters: evaEnding": `${REFUSED}a layer whose path ends another's`,
  "Adapters: pissaScaling": `${REFUSED}starts of adapters`,
  "Adapters: startRank": `${REFUSED}starts of adapters`,
  "Adapters: groupedDora": `${REFUSED}a grouped convolution`,
  "Adapters: tiedAdapter": `${REFUSED}a tied embedding`,
  "Adapters: ownFrozen": `${REFUSED}layers of a user's own`,
  "Adapters: ownWeight": `${REFUSED}layers of a user's own`,
  "Adapters: ownName": `${REFUSED}layers of a user's own`,
  "Adapters: ownForwardProperty": `${REFUSED}layers of a user's own`,
  "Adapters: ownForwardDropout": `${REFUSED}layers of a user's own`,
  "Adapters: ownForwardDtype": `${REFUSED}layers of a user's own`,
  "Adapters: ownForwardAsync": `${REFUSED}layers of a user's own`,
  "Adapters: ownForwardAssigns": `${REFUSED}layers of a user's own`,
  "Adapters: ownCopy": `${REFUSED}layers of a user's own`,
  "Adapters: attention": `${REFUSED}attention: without the option, or left out`,
  "Adapters in files: loralibAlpha": "test/lora/formats.test.ts: ",
  "Adapters in files: loralibSlices": "test/lora/formats.test.ts: ",
  ...Object.fromEntries(
    ["dora", "biases", "modulesToSave", "tokens", "tied", "layers"].map((key) => [
      `GGUF: ${key}`,
      `${REFUSED}what llama.cpp's adapters cannot hold`,
    ]),
  ),
  "GGUF: factorBiases": `${REFUSED}biases of B are merged where the layers have biases`,
  "Quantised weights: merged": `${REFUSED}quantised weights`,
  "Quantised weights: dora": "test/recommendations/recommendations.test.ts: DoRA over blocks",
  "Quantised weights: start": "test/recommendations/recommendations.test.ts: a start over blocks",
  "Quantised weights: saved": `${REFUSED}quantised weights`,
  "Quantised weights: quantizedFile": `${REFUSED}quantised weights`,
  "Runs: loraOfAdapter":
    "test/train/start-adapter.test.ts: options that contradict the adapter are refused by name",
  "Runs: adapterWithoutHead": "test/train/start-adapter.test.ts: ",
  "Runs: packedLabels": `${REFUSED}rows with labels`,
  "Runs: packedSpeech": "test/train/speech.test.ts: ",
  "Runs: bothStandardInput": `${HERE}standard input`,
  "Runs: quantizeOfLoaded": `${REFUSED}quantised weights`,
  "The command line: deviceOfList": "test/tuning.test.ts: devices --tune tries the usual shapes",
  "The command line: logprobsWithoutJson": `${REFUSED}options of commands`,
  "The command line: blocksOutsideGguf": `${REFUSED}options of commands`,
  "The command line: revisionWithoutModel": `${REFUSED}options of commands`,
};
