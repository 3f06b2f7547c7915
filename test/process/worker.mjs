// A worker thread does not inherit the loader from its parent's command line.
import { register } from "tsx/esm/api";

register();
await import("./child.ts");
