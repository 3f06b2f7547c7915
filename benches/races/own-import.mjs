// Imports the built package in a process of its own, and says how long that took.
const start = performance.now();
await import("../../dist/index.js");
console.log(JSON.stringify({ ms: performance.now() - start }));
