/** The packed package as an Electron app has it; in one process, since packing takes longer than the tests. */
import "./app.js";
import "./asar.js";
import "./example.js";
import "./no-shared-memory.js";
