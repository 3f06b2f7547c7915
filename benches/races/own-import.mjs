// Imports the built package in a separate process, and prints the time.
const start = performance.now();
await import("../../dist/index.js");
console.log(JSON.stringify({ ms: performance.now() - start }));
