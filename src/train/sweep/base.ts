/** The model, the data and their identities, which all trials of a sweep share. */
import { splitHeldOut } from "../../data/split.js";
import type { StoredExamples } from "../../data/store.js";
import { type Device, resolveDevice } from "../../device/device.js";
import { throwIfAborted } from "../../errors.js";
import { loadLocated } from "../../models/files/load.js";
import type { Located } from "../../models/files/locate.js";
import type { PretrainedModel } from "../../models/pretrained.js";
import type { Tokenizer } from "../../models/tokenizer.js";
import { type MatmulPrecision, readMatmulPrecision } from "../../tensor/scope.js";
import { checkPacking, load, locateModel } from "../finetune/preparation.js";
import { identifyInputs } from "../identity.js";
import { resolveClasses, resolveTemplate } from "../inherited.js";
import type { Objective } from "../objective.js";
import type { Identities } from "../output/run-file.js";
import {
  closeFiles,
  createObjective,
  type Files,
  prepare,
  type Prepared,
  createReader,
  readFiles,
} from "../prepare.js";
import type { RunContext } from "../run.js";
import type { Settings } from "../settings.js";
import { identifyAdapter } from "../start-adapter.js";

/** The loaded parts of a sweep. */
export class SweepBase {
  readonly settings: Settings;
  readonly precision: MatmulPrecision;
  readonly identities: Identities;
  readonly #files: Files;
  readonly #located: Located;
  readonly #labels: readonly string[] | undefined;
  readonly #template: ReturnType<typeof resolveTemplate>;
  readonly #prepared: Prepared;
  readonly #tokenizer: Tokenizer | undefined;

  private constructor(
    settings: Settings,
    identities: Identities,
    read: Pick<Parts, "files" | "located" | "labels" | "template">,
    { prepared, tokenizer }: Pick<Parts, "prepared" | "tokenizer">,
  ) {
    this.settings = settings;
    this.precision = settings.matmulPrecision ?? readMatmulPrecision();
    this.identities = identities;
    this.#files = read.files;
    this.#located = read.located;
    this.#labels = read.labels;
    this.#template = read.template;
    this.#prepared = prepared;
    this.#tokenizer = tokenizer;
  }

  /**
   * Reads and tokenises the data once for all trials. Errors: as of `finetune` before a model is loaded.
   */
  static async open(settings: Settings, context: Pick<RunContext, "emit">): Promise<SweepBase> {
    const { signal } = settings;
    const template = resolveTemplate(settings, undefined, context);
    const files = await readFiles(settings, createReader(settings, context));
    try {
      throwIfAborted(signal);
      const located = await locateModel(settings, context);
      const identities = {
        ...(await identifyInputs(located.path, files)),
        ...(settings.adapter !== undefined && { adapter: await identifyAdapter(settings.adapter) }),
      };
      const labels = resolveClasses(files, located.path, settings, undefined);
      if (settings.packing) checkPacking(files, labels);
      // A meta device reads no weights, but the data is tokenised as for the model.
      const [device = "auto"] = settings.devices;
      const model = await loadOn(`meta:${resolveDevice(device)}` as Device, { settings, located, labels });
      try {
        if (template !== undefined) model.tokenizer?.assignTemplates(template);
        // Each trial holds out rows by its seed.
        const undivided = { ...settings, evalSplit: undefined };
        const prepared = await prepare(model, files, labels, undivided, context);
        const { tokenizer } = model;
        const read = { files, located, labels, template };
        return new SweepBase({ ...settings, revision: model.revision }, identities, read, {
          prepared,
          tokenizer,
        });
      } finally {
        model.dispose();
      }
    } catch (error) {
      closeFiles(files);
      throw error;
    }
  }

  close(): void {
    closeFiles(this.#files);
  }

  /** Loads the model on a device. */
  async load(device: Device, { emit }: Pick<RunContext, "emit">): Promise<PretrainedModel> {
    const labels = this.#labels === undefined ? undefined : [...this.#labels];
    const settings = { ...this.settings, device };
    const model = await load(this.#located, settings, { labels, tokenizer: this.#tokenizer }, { emit });
    if (this.#template !== undefined) model.tokenizer?.assignTemplates(this.#template);
    return model;
  }

  /** Loads the model on a meta device. */
  loadMeta(device: Device): Promise<PretrainedModel> {
    return loadOn(device, {
      settings: this.settings,
      located: this.#located,
      labels: this.#labels,
      tokenizer: this.#tokenizer,
    });
  }

  createObjective(model: PretrainedModel): Objective {
    return createObjective(model, { ...this.settings, labels: this.#labels });
  }

  /** Returns the data of a trial, whose held-out rows are drawn by its seed. */
  prepare(objective: Objective, { evalSplit, seed }: Settings): Prepared {
    const { train, held, reports } = this.#prepared;
    if (evalSplit === undefined) return { objective, train, held, reports };
    return { objective, ...splitHeldOut(train as StoredExamples, evalSplit, seed), reports };
  }
}

interface Parts {
  settings: Settings;
  files: Files;
  located: Located;
  labels: readonly string[] | undefined;
  template: ReturnType<typeof resolveTemplate>;
  prepared: Prepared;
  tokenizer: Tokenizer | undefined;
}

function loadOn(
  device: Device,
  {
    settings: { dtype, quantize, offloadWeights, signal },
    located,
    labels,
    tokenizer,
  }: Pick<Parts, "settings" | "located" | "labels"> & { tokenizer?: Tokenizer | undefined },
): Promise<PretrainedModel> {
  return loadLocated(located, {
    device: device as Exclude<Device, "auto">,
    onNotice: () => {},
    tokenizer,
    offloadWeights,
    ...(dtype !== undefined && { dtype }),
    ...(quantize !== undefined && { quantize }),
    ...(signal !== undefined && { signal }),
    ...(labels !== undefined && { task: "sequence-classification", numLabels: labels.length }),
  });
}
