/**
 * Times a LoRA step of QVAC on the CPU with 512 tokens. Run by bare with QVAC's installation folder and the folder of
 * peer_gguf.py. Trains a few steps and reports the median of those after the first, by QVAC's clock.
 */
const [installed, folder] = Bare.argv.slice(2);
const LlmLlamacpp = require(`${installed}/node_modules/@qvac/llm-llamacpp`);
const fs = require(`${installed}/node_modules/bare-fs`);

async function main() {
  const quiet = { info() {}, warn() {}, debug() {}, error: (...args) => console.error(...args) };
  const model = new LlmLlamacpp({
    files: { model: [`${folder}/model.gguf`] },
    config: { device: "cpu", gpu_layers: "0", ctx_size: "512", verbosity: "0" },
    opts: { stats: true },
    logger: quiet,
  });
  await model.load();
  const run = await model.finetune({
    trainDatasetDir: `${folder}/text.txt`,
    validation: { type: "none" },
    outputParametersDir: `${folder}/out`,
    checkpointSaveDir: `${folder}/checkpoints`,
    numberOfEpochs: 1,
    contextLength: 512,
    batchSize: 512,
    microBatchSize: 512,
    loraModules: "attn_q,attn_k,attn_v,attn_o,ffn_gate,ffn_up,ffn_down",
    loraRank: 16,
    loraAlpha: 32,
    lrScheduler: "constant",
  });
  const told = [];
  run.on("stats", ({ elapsed_ms, current_batch, loss }) =>
    told.push({ elapsed_ms, current_batch, loss, at: Date.now() }),
  );
  await run.await();
  const steps = told.slice(1).map((stats, i) => stats.at - told[i].at);
  steps.sort((a, b) => a - b);
  const peak = /VmHWM:\s+(\d+)/.exec(fs.readFileSync("/proc/self/status", "utf8"));
  const line = {
    ms: steps[steps.length >> 1],
    steps,
    told,
    peakMiB: peak === null ? null : Number(peak[1]) / 1024,
  };
  console.log(JSON.stringify(line));
  await model.unload();
}

main().catch((error) => {
  console.error(error);
  Bare.exit(1);
});
