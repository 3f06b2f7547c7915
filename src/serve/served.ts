/** The models that requests can name. */
import { ApiError } from "./api-error.js";

/** A model that requests can name: the base model, or one of its adapters. */
export interface Served {
  name: string;
  /** The adapter's name in the model; null for the base model. */
  adapter: string | null;
}

/** Returns the model called `name`. Throws an `ApiError`, status 404, that lists the names. */
export function findServed(name: string, served: readonly Served[]): Served {
  const found = served.find((model) => model.name === name);
  if (found !== undefined) return found;
  const names = served.map((model) => JSON.stringify(model.name)).join(", ");
  const shown = JSON.stringify(name.slice(0, 100));
  throw new ApiError(404, `there is no model ${shown}; this server has ${names}`, {
    param: "model",
    code: "model_not_found",
  });
}
