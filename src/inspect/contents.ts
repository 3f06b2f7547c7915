/** What a file of weights holds, by its header. */
import { isGguf, openGguf } from "../gguf.js";
import { openWeights } from "../safetensors.js";

/** What a file of weights holds. */
export interface Contents {
  /** Values in all tensors. */
  parameters: number;
  /** Their bytes. */
  bytes: number;
  /** Values by how they are stored. */
  dtypes: Record<string, number>;
}

/** Of a safetensors or a GGUF file, or of a folder with shards. Throws `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`. */
export function contentsOf(path: string): Contents {
  const file = isGguf(path) ? openGguf(path) : openWeights(path);
  const contents: Contents = { parameters: 0, bytes: 0, dtypes: {} };
  for (const name of file.names()) {
    const { dtype, shape, bytes } = file.info(name);
    const count = shape.reduce((product, size) => product * size, 1);
    contents.parameters += count;
    contents.bytes += bytes;
    contents.dtypes[dtype] = (contents.dtypes[dtype] ?? 0) + count;
  }
  return contents;
}
