/** Writes the folder of a model of SmolLM2-135M's shape with random weights, for both sides to load. */
import { saveModel } from "../../src/index.js";
import { model } from "./model.js";

const [folder] = process.argv.slice(2);
if (folder === undefined) throw new Error("which folder?");
await saveModel(model(), folder);
