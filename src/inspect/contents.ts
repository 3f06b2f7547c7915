/** The contents of a weight file, by its header. */
import { isGguf, openGguf } from "../gguf/read.js";
import { openWeights } from "../files/safetensors.js";

/** The contents of a weight file. */
export interface Contents {
  /** The number of values in all tensors. */
  parameters: number;
  /** The size of all tensors in bytes. */
  bytes: number;
  /** The number of values by storage type. */
  dtypes: Record<string, number>;
}

/** Describes a safetensors or GGUF file, or a folder with shards. Throws `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`. */
export function readContents(path: string): Contents {
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
