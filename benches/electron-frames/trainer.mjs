// The utility process that trains, equivalent to an app's trainer.js.
const { serve } = await import(process.env.LOWRANK_ELECTRON_ENTRY);
serve(process.parentPort);
