// Writes the weights of a GGUF file as a folder in f32.
import { loadModel, saveModel } from "../../dist/index.js";

const [file, folder] = process.argv.slice(2);
await saveModel(await loadModel(file, { device: "cpu" }), folder, { dtype: "f32", overwrite: true });
