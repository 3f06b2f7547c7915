// A worker thread takes no loader from its parent's command line.
import { register } from "tsx/esm/api";

register();
await import("./child.ts");
