// Writes what the blocks of a GGUF file hold as a folder in f32.
import { loadModel, saveModel } from "../../dist/index.js";

const [file, folder] = process.argv.slice(2);
await saveModel(await loadModel(file, { device: "cpu" }), folder, { dtype: "f32", overwrite: true });
