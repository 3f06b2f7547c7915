// The utility process that trains: what an app's own trainer.js does.
const { serve } = await import(process.env.LOWRANK_ELECTRON_ENTRY);
serve(process.parentPort);
