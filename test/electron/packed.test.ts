/** The packed package in an Electron app; in one process, since packing takes longer than the tests. */
import "./app.js";
import "./asar.js";
import "./example.js";
import "./no-shared-memory.js";
